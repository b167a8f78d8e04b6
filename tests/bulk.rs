//! Files of rows against a model on whole nodes: in order, with errors in place, and the same after a crash.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::models::{self, images};
use crate::support::{Node, NodeOptions, eventually};

/// Work in the background waits while the machine is busy, which is not what these tests are about.
fn options() -> NodeOptions {
    NodeOptions::dev().set("gateway.ladder", "false")
}

/// Rows of the digits, some of which are wrong; and which.
fn rows(count: usize) -> (String, Vec<usize>) {
    let images = images();
    let (mut text, mut bad) = (String::new(), Vec::new());
    for row in 0..count {
        let pixels = &images[row % images.len()].0;
        match row % 997 {
            100 => text.push_str("{\"image\": [1, 2, 3]}\n"),
            500 => text.push_str("not JSON\n"),
            _ => {
                text.push_str(&serde_json::to_string(&json!({ "image": pixels })).unwrap());
                text.push('\n');
                continue;
            }
        }
        bad.push(row);
    }
    (text, bad)
}

async fn upload(node: &Node, name: &str, text: String) -> Value {
    let answer = node.request(reqwest::Method::PUT, &format!("/api/v1/files?name={name}")).body(text).send().await.unwrap();
    assert_eq!(answer.status(), 201, "{}", answer.text().await.unwrap());
    answer.json().await.unwrap()
}

async fn submit(node: &Node, body: &Value) -> String {
    let answer = node.post("/api/v1/bulk").json(body).send().await.unwrap();
    assert_eq!(answer.status(), 202, "{}", answer.text().await.unwrap());
    let submitted: Value = answer.json().await.unwrap();
    submitted["id"].as_str().unwrap().to_owned()
}

/// The job once it has ended.
async fn ended(node: &Node, id: &str) -> Value {
    eventually(&format!("the end of job {id}"), Duration::from_secs(120), async || {
        let job: Value = node.get(&format!("/api/v1/jobs/{id}?wait=20")).send().await.ok()?.json().await.ok()?;
        job["ended_at"].is_string().then_some(job)
    })
    .await
}

async fn output(node: &Node, id: &str) -> String {
    let answer = node.get(&format!("/api/v1/jobs/{id}/output")).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers()["content-type"].as_bytes()), (200, &b"application/jsonl"[..]));
    let length = answer.content_length().unwrap();
    let text = answer.text().await.unwrap();
    assert_eq!(text.len() as u64, length);
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_killed_in_the_middle_gives_the_same_output() {
    const ROWS: usize = 20_000;
    let mut node = Node::start(options()).await;
    models::deploy(&node, "digits", &models::digits(1)).await;
    let (text, bad) = rows(ROWS);
    let file = upload(&node, "rows.jsonl", text).await;
    let body = json!({ "model": "digits", "file": file["id"], "outputs": ["label"], "batch_size": 4, "concurrency": 2 });
    let whole = submit(&node, &body).await;
    let job = ended(&node, &whole).await;
    assert_eq!((job["state"].as_str(), job["labels"]["model"].as_str()), (Some("succeeded"), Some("digits")), "{job}");
    let whole = output(&node, &whole).await;
    // A row for each row, in order, and the errors where they belong.
    let images = images();
    let lines: Vec<Value> = whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), ROWS);
    let (mut right, mut wrong) = (0, Vec::new());
    for (row, line) in lines.iter().enumerate() {
        assert_eq!(line["row"], row);
        if line["error"].is_string() {
            wrong.push(row);
        } else {
            right += usize::from(line["label"] == images[row % images.len()].1);
        }
    }
    assert_eq!(wrong, bad);
    assert!(right * 10 > ROWS * 9, "{right} labels are right");

    let cut = submit(&node, &body).await;
    eventually("a part is done", Duration::from_secs(60), async || {
        let job: Value = node.get(&format!("/api/v1/jobs/{cut}")).send().await.ok()?.json().await.ok()?;
        (job["progress"].as_f64()? > 0.0).then_some(())
    })
    .await;
    node.kill();
    node.restart().await;
    let job = ended(&node, &cut).await;
    assert_eq!(job["state"], "succeeded", "{job}");
    assert!(job["attempt"].as_u64() >= Some(2), "it was interrupted: {job}");
    assert!(output(&node, &cut).await == whole, "the output is the same");
    let result: Value = node.get(&format!("/api/v1/jobs/{cut}/result")).send().await.unwrap().json().await.unwrap();
    assert_eq!((result["rows"].as_u64(), result["failed"].as_u64()), (Some(ROWS as u64), Some(bad.len() as u64)), "{result}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_uploaded_in_both_shapes_listed_and_deleted() {
    let node = Node::start(options()).await;
    let form = |text: &str| node.post("/v1/files").header("content-type", "multipart/form-data; boundary=x").body(text.to_owned()).send();
    let answer = form(
        "--x\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--x\r\nContent-Disposition: form-data; name=\"file\"; \
         filename=\"a.jsonl\"\r\nContent-Type: application/jsonl\r\n\r\n[1]\n[2]\n\r\n--x--\r\n",
    )
    .await
    .unwrap();
    assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
    let first: Value = answer.json().await.unwrap();
    assert_eq!(
        (&first["object"], &first["bytes"], &first["filename"], &first["purpose"]),
        (&json!("file"), &json!(8), &json!("a.jsonl"), &json!("batch"))
    );
    assert!(first["expires_at"].as_u64() > first["created_at"].as_u64());
    let second = upload(&node, "b.csv", "x\n1\n".into()).await;
    let list: Value = node.get("/v1/files").send().await.unwrap().json().await.unwrap();
    let ids: Vec<&Value> = list["data"].as_array().unwrap().iter().map(|file| &file["id"]).collect();
    assert_eq!(ids, [&second["id"], &first["id"]], "newest first");
    let place = format!("/v1/files/{}", first["id"].as_str().unwrap());
    let content = node.get(&format!("{place}/content")).send().await.unwrap().text().await.unwrap();
    assert_eq!(content, "[1]\n[2]\n");
    let gone: Value = node.request(reqwest::Method::DELETE, &place).send().await.unwrap().json().await.unwrap();
    assert_eq!(gone["deleted"], true);
    assert_eq!(node.get(&place).send().await.unwrap().status(), 404);
    for bad in ["", "--x\r\n", "--x\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--x--\r\n"] {
        assert_eq!(form(bad).await.unwrap().status(), 400, "{bad:?}");
    }
    // A record that was not made by an upload is none, whatever it says; and a bulk job needs its own route.
    let digest = first["digest"].as_str().unwrap();
    for kind in ["file", "bulk"] {
        let forged = json!({ "kind": kind, "input": { "name": "a", "digest": digest, "bytes": 8 }, "delay_seconds": if kind == "file" { 60 } else { 0 } });
        let answer = node.post("/api/v1/jobs").json(&forged).send().await.unwrap();
        let submitted: Value = answer.json().await.unwrap();
        let id = submitted["id"].as_str().unwrap();
        match kind {
            "file" => assert_eq!(node.get(&format!("/v1/files/file-{id}")).send().await.unwrap().status(), 404),
            _ => assert_eq!(ended(&node, id).await["state"], "dead"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn csv_and_mistakes() {
    let node = Node::start(options()).await;
    models::deploy(&node, "digits", &models::digits(1)).await;
    let images = images();
    let mut text = (0..64).map(|at| format!("p{at}")).collect::<Vec<_>>().join(",") + "\n";
    for (pixels, _) in images.iter().take(3) {
        text += &(pixels.iter().map(ToString::to_string).collect::<Vec<_>>().join(",") + "\n");
    }
    let file = upload(&node, "rows.csv", text).await;
    // All columns in order, and the same by their prefix.
    let mut outputs = Vec::new();
    for inputs in [json!({}), json!({ "image": { "prefix": "p" } })] {
        let id = submit(
            &node,
            &json!({ "model": "digits", "file": file["id"], "inputs": inputs, "outputs": ["label"], "output_format": "csv" }),
        )
        .await;
        let job = ended(&node, &id).await;
        assert_eq!(job["state"], "succeeded", "{job}");
        outputs.push(node.get(&format!("/api/v1/jobs/{id}/output")).send().await.unwrap().text().await.unwrap());
    }
    assert_eq!(outputs[0], outputs[1]);
    assert!(outputs[0].starts_with("row,label,error\n0,") && outputs[0].lines().count() == 4, "{}", outputs[0]);
    for (body, status) in [
        (json!({ "model": "digits", "file": "file-none" }), 404),
        (json!({ "model": "digits", "file": file["id"], "format": "xml" }), 400),
        (json!({ "model": "digits", "file": file["id"], "batch": 3 }), 400),
        (json!({ "file": file["id"] }), 400),
    ] {
        assert_eq!(node.post("/api/v1/bulk").json(&body).send().await.unwrap().status(), status, "{body}");
    }
    // What the model does not have is the job's failure.
    let id = submit(&node, &json!({ "model": "digits", "file": file["id"], "outputs": ["nothing"] })).await;
    let job = ended(&node, &id).await;
    assert_eq!((job["state"].as_str(), job["attempt"].as_u64()), (Some("dead"), Some(1)), "{job}");
    assert_eq!(node.get(&format!("/api/v1/jobs/{id}/output")).send().await.unwrap().status(), 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_have_the_shape_of_openai() {
    let node = Node::start(options()).await;
    models::deploy(&node, "digits", &models::digits(1)).await;
    let images = images();
    let endpoint = "/v2/models/digits/infer";
    let line = |id: &str, url: &str, data: &[f32]| {
        let body = json!({ "inputs": [{ "name": "image", "datatype": "FP32", "shape": [1, data.len()], "data": data }], "outputs": [{ "name": "label" }] });
        json!({ "custom_id": id, "method": "POST", "url": url, "body": body }).to_string() + "\n"
    };
    let mut text: String = images.iter().take(20).enumerate().map(|(at, (pixels, _))| line(&format!("r{at}"), endpoint, pixels)).collect();
    text += &line("short", endpoint, &[1.0, 2.0]);
    text += &line("elsewhere", "/v2/models/other/infer", &images[0].0);
    text += "not JSON\n";
    let file = upload(&node, "lines.jsonl", text).await;
    let body = json!({ "input_file_id": file["id"], "endpoint": endpoint, "completion_window": "24h", "metadata": { "a": "b" } });
    let answer = node.post("/v1/batches").json(&body).send().await.unwrap();
    assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
    let made: Value = answer.json().await.unwrap();
    assert_eq!((&made["object"], &made["input_file_id"]), (&json!("batch"), &file["id"]));
    let id = made["id"].as_str().unwrap();
    let done = eventually("the end of the batch", Duration::from_secs(30), async || {
        let batch: Value = node.get(&format!("/v1/batches/{id}")).send().await.ok()?.json().await.ok()?;
        ["completed", "failed", "expired"].contains(&batch["status"].as_str()?).then_some(batch)
    })
    .await;
    assert_eq!((&done["status"], &done["metadata"]), (&json!("completed"), &json!({ "a": "b" })), "{done}");
    assert_eq!(done["request_counts"], json!({ "total": 23, "completed": 20, "failed": 3 }));
    let read = async |id: &Value| -> Vec<Value> {
        let text = node.get(&format!("/v1/files/{}/content", id.as_str().unwrap())).send().await.unwrap().text().await.unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let good = read(&done["output_file_id"]).await;
    assert_eq!(good.len(), 20);
    for (at, line) in good.iter().enumerate() {
        assert_eq!((&line["custom_id"], &line["response"]["status_code"]), (&json!(format!("r{at}")), &json!(200)));
        assert_eq!(line["response"]["body"]["model_name"], "digits");
    }
    let bad = read(&done["error_file_id"]).await;
    assert_eq!((&bad[0]["custom_id"], &bad[0]["response"]["status_code"]), (&json!("short"), &json!(400)), "{bad:?}");
    assert_eq!((&bad[1]["error"]["code"], &bad[2]["error"]["code"]), (&json!("mismatched_endpoint"), &json!("invalid_json")), "{bad:?}");
    let list: Value = node.get("/v1/batches?limit=5").send().await.unwrap().json().await.unwrap();
    assert_eq!((&list["data"][0]["id"], &list["has_more"]), (&made["id"], &json!(false)));
    assert_eq!(node.post(&format!("/v1/batches/{id}/cancel")).send().await.unwrap().status(), 409);
    for bad in [
        json!({ "input_file_id": "file-none", "endpoint": endpoint, "completion_window": "24h" }),
        json!({ "input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h" }),
        json!({ "input_file_id": file["id"], "endpoint": endpoint, "completion_window": "1h" }),
    ] {
        assert!(node.post("/v1/batches").json(&bad).send().await.unwrap().status().is_client_error(), "{bad}");
    }
}
