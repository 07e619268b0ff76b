//! A node that says what a test tells it to: HTTP/1.1 over loopback, one request a connection.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use form_node::auth::{Address, Expected, SignedRequest, check_entry};
use serde_json::{Value, json};

pub(crate) const INSTALLATION: &str = "1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a";
pub(crate) const CLUSTER: &str = "c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1";
pub(crate) const INSTANCE: &str = "0101010101010101010101010101010101010101";
pub(crate) const ATTEMPT: &str = "a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7a7";
pub(crate) const HEAD: &str = "4ead4ead4ead4ead4ead4ead4ead4ead4ead4ead4ead4ead4ead4ead4ead4ead";

#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// Who signed it, for this subject; panics when nobody did.
    pub(crate) fn signer(&self, cluster: &str, instance: &str) -> Address {
        let header = |name: &str| self.headers.get(name).map(String::as_str).unwrap_or_default();
        let signed =
            SignedRequest::from_headers(header("x-message"), header("x-signature"), header("x-recovery-id")).unwrap();
        let expected =
            Expected { installation: INSTALLATION, cluster, instance, method: &self.method, path: &self.path };
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        check_entry(&signed, &expected, &self.body, now.as_millis().try_into().unwrap()).unwrap().signer()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

pub(crate) enum Answer {
    Json(u16, Value),
    /// A stream of events that ends as the attempt does.
    Events(Vec<Value>),
    /// A stream that breaks after these.
    Broken(Vec<Value>),
    /// A stream that stays open after these, until the node is dropped.
    Open(Vec<Value>),
    /// The connection becomes bytes: these are said, then all that comes is said back.
    Console(&'static [u8]),
}

pub(crate) struct FakeNode {
    pub(crate) url: String,
    requests: Arc<Mutex<Vec<Request>>>,
    over: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl FakeNode {
    /// `answer` gets a request and how many of the same method and path came before it; `None` is a 404.
    pub(crate) fn start(answer: impl Fn(&Request, usize) -> Option<Answer> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (requests, over) = (Arc::new(Mutex::new(vec![])), Arc::new(AtomicBool::new(false)));
        let (answer, log, ended) = (Arc::new(answer), Arc::clone(&requests), Arc::clone(&over));
        let accepting = std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                let (answer, log, ended) = (Arc::clone(&answer), Arc::clone(&log), Arc::clone(&ended));
                // The client may go away in the middle: that is its right, and not what is tested here.
                std::thread::spawn(move || drop(serve(stream, &*answer, &log, &ended)));
            }
        });
        Self { url, requests, over, accepting: Some(accepting) }
    }

    /// The requests of a method and path, in order.
    pub(crate) fn requests(&self, method: &str, path: &str) -> Vec<Request> {
        let requests = self.requests.lock().unwrap();
        requests.iter().filter(|request| request.method == method && request.path == path).cloned().collect()
    }
}

impl Drop for FakeNode {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        drop(TcpStream::connect(self.url.trim_start_matches("http://")));
        if let Some(accepting) = self.accepting.take() {
            accepting.join().unwrap();
        }
    }
}

fn serve(
    mut stream: TcpStream,
    answer: &dyn Fn(&Request, usize) -> Option<Answer>,
    log: &Mutex<Vec<Request>>,
    over: &AtomicBool,
) -> std::io::Result<()> {
    let request = read(&mut BufReader::new(stream.try_clone()?))?;
    let before = {
        let mut log = log.lock().unwrap();
        let before = log.iter().filter(|old| old.method == request.method && old.path == request.path).count();
        log.push(request.clone());
        before
    };
    let common = match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/api/v1/node") => Some(Answer::Json(200, node())),
        ("GET", "/api/v1/instances/demo-1") => Some(Answer::Json(200, instance())),
        _ => None,
    };
    match answer(&request, before).or(common) {
        None => json_answer(&mut stream, 404, &json!({ "code": "not_found", "message": "no such thing" })),
        Some(Answer::Json(status, body)) => json_answer(&mut stream, status, &body),
        Some(Answer::Events(all)) => {
            events(&mut stream, &all)?;
            stream.write_all(b"0\r\n\r\n")
        }
        Some(Answer::Broken(some)) => events(&mut stream, &some),
        Some(Answer::Open(some)) => {
            events(&mut stream, &some)?;
            while !over.load(Ordering::SeqCst) {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            Ok(())
        }
        Some(Answer::Console(greeting)) => {
            stream.write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: form-console\r\n\r\n",
            )?;
            stream.write_all(greeting)?;
            std::io::copy(&mut stream.try_clone()?, &mut stream).map(drop)
        }
    }
}

fn read(input: &mut impl BufRead) -> std::io::Result<Request> {
    let mut line = String::new();
    input.read_line(&mut line)?;
    let mut words = line.split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        input.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    input.read_exact(&mut body)?;
    Ok(Request { method, path, headers, body })
}

fn json_answer(stream: &mut TcpStream, status: u16, body: &Value) -> std::io::Result<()> {
    let body = body.to_string();
    write!(stream, "HTTP/1.1 {status} Status\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

fn events(stream: &mut TcpStream, events: &[Value]) -> std::io::Result<()> {
    write!(stream, "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")?;
    for event in events {
        let text = format!(": still here\n\nevent: progress\ndata: {event}\n\n");
        write!(stream, "{:x}\r\n{text}\r\n", text.len())?;
    }
    Ok(())
}

pub(crate) fn node() -> Value {
    json!({
        "node_id": "d0".repeat(32), "version": "0.1.0", "installation_id": INSTALLATION, "api": "127.0.0.1:3002",
        "quic": "127.0.0.1:3003", "store": "sqlite:/var/lib/form/state.db",
        "vmm": { "vmm": "qemu", "version": "7.2.11", "machine_type": "pc-i440fx-7.2", "accelerator": "tcg",
                 "cpu_model": "qemu64" },
        "engine": "io_uring", "instances": 1, "data_free_bytes": 5_u64 << 30,
    })
}

pub(crate) fn instance() -> Value {
    json!({
        "instance_id": INSTANCE, "name": "demo-1", "node_id": "d0".repeat(32), "cluster_id": CLUSTER,
        "owner": "f39fd6e51aad88f6f4ce6ab8827279cfffb92266", "status": "Started", "snapshot_id": HEAD, "local": true,
        "members": ["demo-1", "demo-2"],
        "snapshots": [{ "snapshot_id": HEAD, "timestamp_ms": 1_795_000_000_000_u64, "description": "first",
                        "previous_snapshot": null }],
        "attempt_id": null,
    })
}
