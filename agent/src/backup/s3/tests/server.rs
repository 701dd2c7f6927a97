//! A server that says what it is told to, one answer a connection.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread::JoinHandle,
};

/// When an object came to be, in each answer.
pub(super) const STAMP: &str = "Sat, 21 Nov 2026 12:00:01 GMT";

/// What happens to one request.
#[derive(Clone, Debug)]
pub(super) enum Reply {
    /// It is read, and answered.
    Is(u16, String),
    /// It is read, and so much of the answer comes back, of a body that long.
    Cut(u16, String, usize),
    /// It is read, and the connection ends.
    Lost,
}

impl Reply {
    pub(super) fn is(status: u16, body: &str) -> Self {
        Self::Is(status, body.to_owned())
    }

    /// As the service tells of an error.
    pub(super) fn refused(status: u16, code: &str, message: &str) -> Self {
        Self::Is(
            status,
            format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>"),
        )
    }
}

/// A request, as far as tests look at it.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    /// Method and target.
    pub(super) line: String,
    pub(super) head: Vec<String>,
    pub(super) body: Vec<u8>,
}

impl Asked {
    pub(super) fn has(&self, header: &str) -> bool {
        self.head
            .iter()
            .any(|line| line.eq_ignore_ascii_case(header))
    }
}

pub(super) struct Server {
    pub(super) endpoint: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// One that gives these answers and ends.
    pub(super) fn start(replies: Vec<Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = asked.clone();
        let thread = std::thread::spawn(move || {
            for reply in replies {
                let (stream, _) = listener.accept().unwrap();
                seen.lock().unwrap().push(serve(stream, &reply));
            }
        });
        Self {
            endpoint,
            asked,
            thread: Some(thread),
        }
    }

    /// What it was asked; waits until it gave all its answers.
    pub(super) fn asked(mut self) -> Vec<Asked> {
        self.thread.take().unwrap().join().unwrap();
        self.asked.lock().unwrap().clone()
    }
}

fn serve(stream: TcpStream, reply: &Reply) -> Asked {
    let mut reader = BufReader::new(stream);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let line = line.trim_end().to_owned();
        if line.is_empty() {
            break;
        }
        head.push(line);
    }
    let line = head.remove(0);
    let len = head.iter().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.parse().unwrap())
    });
    let mut body = vec![0; len.unwrap_or(0)];
    reader.read_exact(&mut body).unwrap();
    let (status, text, sent) = match reply {
        Reply::Is(status, text) => (*status, text, text.len()),
        Reply::Cut(status, text, sent) => (*status, text, *sent),
        Reply::Lost => return Asked { line, head, body },
    };
    let mut answer = format!(
        "HTTP/1.1 {status} Told\r\nConnection: close\r\nLast-Modified: {STAMP}\r\nETag: \"1\"\r\n\
         Content-Length: {}\r\n",
        text.len(),
    );
    let range = head.iter().find_map(|line| {
        let (_, range) = line.split_once("bytes=")?;
        range.split_once('-')?.0.parse::<usize>().ok()
    });
    if let (206, Some(from)) = (status, range) {
        let last = from + text.len() - 1;
        answer += &format!("Content-Range: bytes {from}-{last}/{}\r\n", last + 1);
    }
    answer += "\r\n";
    let mut stream = reader.into_inner();
    stream.write_all(answer.as_bytes()).unwrap();
    if !line.starts_with("HEAD") {
        stream.write_all(&text.as_bytes()[..sent]).unwrap();
    }
    Asked { line, head, body }
}
