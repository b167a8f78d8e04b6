"""Tests of the demo's parts: pictures, the screen, statistics, and the load on a server that was made up."""

import contextlib
import http.server
import io
import json
import threading
import time
import unittest
from pathlib import Path

import node
import pictures
import screen
import traffic

IMAGES = json.loads((Path(__file__).parent / "images.json").read_text())


class Pictures(unittest.TestCase):
    def test_a_picture_has_eight_rows_of_sixteen(self):
        rows = pictures.picture(IMAGES[0]["pixels"])
        self.assertEqual([len(r) for r in rows], [16] * 8)

    def test_ink_is_dark_and_paper_is_empty(self):
        rows = pictures.picture([16] * 8 + [0] * 56)
        self.assertEqual(rows[0], "█" * 16)
        self.assertEqual(rows[1], " " * 16)
        self.assertEqual(pictures.picture([99] + [-5] * 63, pictures.ASCII_SHADES)[0], "##" + " " * 14)

    def test_pictures_stand_beside_each_other(self):
        self.assertEqual(pictures.beside([["ab", "cd"], ["ef", "gh"]], "|"), ["ab|ef", "cd|gh"])
        self.assertEqual([pictures.fitting(c) for c in (20, 80, 100, 1000)], [2, 4, 5, 6])

    def test_painted_pictures_are_as_large(self):
        self.assertEqual(pictures.smooth([7] * 64), [[7.0] * 16] * 16)
        rising = pictures.smooth(list(range(8)) * 8)
        self.assertTrue(all(row == sorted(row) and row[0] == 0 and row[-1] == 7 for row in rising))
        rows = pictures.painted([0, 16] * 32)
        self.assertEqual([row.count("▀") for row in rows], [16] * 8)
        self.assertTrue(all(row.endswith("\x1b[0m") for row in rows))

    def test_bars_reach_from_lowest_to_highest(self):
        self.assertEqual(pictures.bars([0, 4, 8]), "▁▅█")
        self.assertEqual(pictures.bars([0, 0]), "▁▁")

    def test_a_wrong_size_is_refused(self):
        with self.assertRaises(ValueError):
            pictures.picture([0] * 63)


class OnScreen(unittest.TestCase):
    def written(self, encoding, write):
        file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        with contextlib.redirect_stdout(file):
            write(screen.Screen())
        return file.buffer.getvalue().decode(encoding)

    def test_a_file_gets_no_colours_and_long_texts_are_wrapped(self):
        text = self.written("utf-8", lambda s: (s.section("A title"), s.refused("word " * 60)))
        self.assertNotIn("\x1b", text)
        self.assertIn("1  A title ──", text)
        self.assertTrue(all(len(line) <= 100 for line in text.splitlines()))

    def test_without_unicode_everything_is_ascii(self):
        self.assertIn("| quoted", self.written("ascii", lambda s: (s.done("done"), s.section("title"), s.quote("quoted"))))

    def test_only_the_whole_fills_the_bar(self):
        self.assertEqual([self.written("ascii", lambda s: s.write(s.share(x))).count("=") for x in (0, 0.985, 1)], [0, 19, 20])


class Images(unittest.TestCase):
    def test_the_set_is_what_the_readme_says(self):
        self.assertEqual(len(IMAGES), 200)
        self.assertEqual([sum(i["label"] == d for i in IMAGES) for d in range(10)], [20] * 10)
        self.assertTrue(all(len(i["pixels"]) == 64 and all(0 <= p <= 16 for p in i["pixels"]) for i in IMAGES))


class Statistics(unittest.TestCase):
    def test_percentiles_by_nearest_rank(self):
        values = [float(v) for v in range(1, 101)]
        self.assertEqual([traffic.percentile(values, s) for s in (0.5, 0.99, 1.0)], [50.0, 99.0, 100.0])
        self.assertEqual(traffic.percentile([7.0], 0.5), 7.0)


class Server(http.server.ThreadingHTTPServer):
    """Answers as a model would: version 1 until `version` is changed, 503 while `broken`."""

    daemon_threads = True

    def __init__(self):
        self.version, self.broken, self.connections = "1", False, 0
        super().__init__(("127.0.0.1", 0), Handler)

    def process_request(self, *arguments):
        self.connections += 1
        super().process_request(*arguments)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        good = self.headers["Authorization"] == "Bearer k" and request["inputs"][0]["shape"] == [1, 64]
        probabilities = [0.0] * 10
        probabilities[3] = 0.75
        outputs = [{"name": "probabilities", "data": probabilities}, {"name": "label", "data": [3]}]
        body = json.dumps({"model_version": self.server.version, "outputs": outputs}).encode()
        self.send_response(503 if self.server.broken or not good else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Traffic(unittest.TestCase):
    def setUp(self):
        self.server = Server()
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()
        self.address = "%s:%d" % self.server.server_address
        self.addCleanup(lambda: (self.server.shutdown(), self.thread.join(), self.server.server_close()))

    def connect(self):
        return traffic.Connection(self.address, "k", "digits", timeout=5)

    def until(self, condition):
        end = time.monotonic() + 10
        while not condition():
            self.assertLess(time.monotonic(), end)
            time.sleep(0.005)

    def test_one_connection_serves_many_requests(self):
        connection = self.connect()
        answers = [connection.infer(image["pixels"]) for image in IMAGES[:5]]
        connection.close()
        self.assertEqual({(a.label, a.probability, a.version) for a in answers}, {(3, 0.75, "1")})
        self.assertEqual(self.server.connections, 1)

    def test_a_change_of_version_under_load_is_seen_and_costs_nothing(self):
        with traffic.Load(self.connect, IMAGES, threads=4) as load:
            self.until(lambda: load.seen("1"))
            self.server.version = "2"
            self.until(lambda: load.seen("2"))
        self.assertEqual({a.version for a in load.all()}, {"1", "2"})
        self.assertEqual(load.failures, [])
        self.assertEqual(load.count(), len(load.all()))
        steps = load.steps(10)
        self.assertEqual((len(steps), sum(map(len, steps))), (10, load.count()))
        self.assertTrue(all(a.at <= b.at for early, late in zip(steps, steps[1:]) for a in early for b in late))

    def test_failures_are_counted(self):
        with traffic.Load(self.connect, IMAGES, threads=2) as load:
            self.until(lambda: load.count() > 0)
            self.server.broken = True
            self.until(lambda: load.failures)
        self.assertIn("503", load.failures[0])

    def test_nobody_there_is_a_failure_too(self):
        with traffic.Load(lambda: traffic.Connection("127.0.0.1:1", "k", "digits", timeout=1), IMAGES, threads=1) as load:
            self.until(lambda: load.failures)
        self.assertEqual(load.all(), [])


class Ports(unittest.TestCase):
    def test_a_taken_port_is_not_usable(self):
        with node.socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            self.assertFalse(node.usable(taken.getsockname()[1]))


if __name__ == "__main__":
    unittest.main()
