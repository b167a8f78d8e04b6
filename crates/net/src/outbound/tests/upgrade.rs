//! Connections that leave HTTP.

use super::*;

const ASKS: &[u8] = b"GET /ws HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-key: k\r\n\r\n";

/// Switches, says hello in the same packet, and answers in capitals until it hears "bye".
async fn shouting(world: &World) -> Upstream {
    world
        .scripted(|mut stream, _| async move {
            let head = String::from_utf8(read_head(&mut stream).await).unwrap();
            assert!(head.contains("\r\nupgrade: websocket\r\n") && head.contains("\r\nconnection: upgrade\r\n"), "{head}");
            let answer = b"HTTP/1.1 101 x\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\nsec-websocket-accept: a\r\n\r\nhello";
            stream.write_all(answer).await.unwrap();
            let mut piece = [0; 100];
            while let Ok(count @ 1..) = stream.read(&mut piece).await {
                stream.write_all(&piece[..count].to_ascii_uppercase()).await.unwrap();
                if &piece[..count] == b"bye" {
                    return;
                }
            }
        })
        .await
}

/// A proxy of hyper's server and this client, as the gateway is one.
async fn proxy(world: &World, endpoint: Endpoint, idle: Duration) -> (Upstream, tokio::sync::mpsc::Receiver<std::io::Result<Copied>>) {
    let (ended, ends) = tokio::sync::mpsc::channel(4);
    let tasks = world.tasks.clone();
    let proxy = world
        .serving(false, move |mut request| {
            let (endpoint, tasks, ended) = (endpoint.clone(), tasks.clone(), ended.clone());
            async move {
                let client = hyper::upgrade::on(&mut request);
                match endpoint.upgrade(request.map(|_| ()), &Deadlines::default()).await.unwrap() {
                    Upgrade::Declined(answer) => answer,
                    Upgrade::Switched(answer, tunnel) => {
                        tasks.spawn("tunnel", OnEnd::Ignore, async move {
                            let _ = ended.send(tunnel.run(client, idle).await).await;
                        });
                        answer
                    }
                }
            }
        })
        .await;
    (proxy, ends)
}

/// The same in a [`Service`] of this crate's own server.
struct Gateway {
    endpoint: Endpoint,
    tasks: TaskGroup,
    ended: tokio::sync::mpsc::Sender<std::io::Result<Copied>>,
}

impl crate::Service for Gateway {
    async fn call(&self, mut request: crate::Request, _peer: crate::Peer) -> crate::Response {
        let client = hyper::upgrade::on(&mut request);
        match self.endpoint.upgrade(request.map(|_| ()), &Deadlines::default()).await.unwrap() {
            Upgrade::Declined(answer) => answer,
            Upgrade::Switched(answer, tunnel) => {
                let ended = self.ended.clone();
                self.tasks.spawn("tunnel", OnEnd::Ignore, async move {
                    let _ = ended.send(tunnel.run(client, PATIENCE).await).await;
                });
                answer
            }
        }
    }
}

#[tokio::test]
async fn this_crate_s_server_lets_a_connection_leave_http() {
    let world = world();
    let upstream = shouting(&world).await;
    let (ended, mut ends) = tokio::sync::mpsc::channel(1);
    let service = Gateway { endpoint: world.endpoint("http", &upstream), tasks: world.tasks.clone(), ended };
    let (limits, metrics) = (crate::ConnectionLimits::default(), plinth_telemetry::ConnectionMetrics::default());
    let config = crate::ListenerConfig::new("gateway", SocketAddr::from(([127, 0, 0, 1], 0)), limits, metrics);
    let server = crate::Server::start(config, Arc::new(service), &world.tasks).unwrap();
    let mut client = TcpStream::connect(server.local_addr()).await.unwrap();
    client.write_all(ASKS).await.unwrap();
    let head = String::from_utf8(read_head(&mut client).await).unwrap();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    read(&mut client, 5 - head.split_once("\r\n\r\n").unwrap().1.len()).await;
    // Looks like no head and like two.
    for said in ["\0\x01\x02 not http\r\n\r\n", "GET / HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n"] {
        client.write_all(said.as_bytes()).await.unwrap();
        assert_eq!(read(&mut client, said.len()).await, said.to_ascii_uppercase());
    }
    client.write_all(b"bye").await.unwrap();
    assert_eq!(read(&mut client, 3).await, "BYE");
    within("the end of the tunnel", ends.recv()).await.unwrap().unwrap();
}

async fn read(client: &mut TcpStream, length: usize) -> String {
    let mut bytes = vec![0; length];
    within("some bytes", client.read_exact(&mut bytes)).await.unwrap();
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn bytes_pass_both_ways_until_one_side_closes() {
    let world = world();
    let upstream = shouting(&world).await;
    let endpoint = world.endpoint("http", &upstream);
    let (proxy, mut ends) = proxy(&world, endpoint.clone(), PATIENCE).await;
    for bye in [true, false] {
        let mut client = TcpStream::connect(proxy.address).await.unwrap();
        client.write_all(ASKS).await.unwrap();
        let head = String::from_utf8(read_head(&mut client).await).unwrap();
        assert!(head.starts_with("HTTP/1.1 101 ") && head.contains("sec-websocket-accept: a\r\n"), "{head}");
        let hello = head.split_once("\r\n\r\n").unwrap().1.len();
        read(&mut client, 5 - hello).await;
        client.write_all(b"one").await.unwrap();
        assert_eq!(read(&mut client, 3).await, "ONE");
        assert_eq!(endpoint.in_flight(), 1);
        if bye {
            client.write_all(b"bye").await.unwrap();
            assert_eq!(read(&mut client, 3).await, "BYE");
            assert_eq!(within("the close", client.read(&mut [0])).await.unwrap(), 0);
        } else {
            drop(client);
        }
        let copied = within("the end of the tunnel", ends.recv()).await.unwrap().unwrap();
        assert_eq!(copied, if bye { Copied { up: 6, down: 11 } } else { Copied { up: 3, down: 8 } });
        assert_eq!((endpoint.in_flight(), endpoint.idle()), (0, 0));
    }
}

#[tokio::test]
async fn a_tunnel_in_which_nothing_moves_ends() {
    let world = world();
    let upstream = shouting(&world).await;
    let (proxy, mut ends) = proxy(&world, world.endpoint("http", &upstream), Duration::from_millis(40)).await;
    let mut client = TcpStream::connect(proxy.address).await.unwrap();
    client.write_all(ASKS).await.unwrap();
    let end = within("the end of the tunnel", ends.recv()).await.unwrap();
    assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
}

#[tokio::test]
async fn an_upstream_may_decline_or_switch_to_something_else() {
    let world = world();
    let request = || Request::get("/").header("upgrade", "websocket").body(()).unwrap();
    let upstream = world.saying("HTTP/1.1 401 x\r\ncontent-length: 2\r\n\r\nno").await;
    let endpoint = world.endpoint("http", &upstream);
    let Upgrade::Declined(answer) = endpoint.upgrade(request(), &Deadlines::default()).await.unwrap() else { panic!("it declined") };
    assert_eq!((answer.status().as_u16(), answer.into_body().into_bytes().await.unwrap()), (401, "no".into()));
    let upstream = world.saying("HTTP/1.1 101 x\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n").await;
    let Err(error) = world.endpoint("http", &upstream).upgrade(request(), &Deadlines::default()).await else { panic!("not asked for") };
    assert!(matches!(error.kind, Kind::Protocol(_)));
}
