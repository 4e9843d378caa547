//! A connection with one deadline for all that is done with it: a server that sends a byte a second gains nothing.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use crate::model::doctor::server::Stop;

pub struct Timed {
    stream: TcpStream,
    until: Instant,
}

impl Timed {
    pub fn connect(address: SocketAddr, timeout: Duration) -> Result<Self, Stop> {
        let until = Instant::now() + timeout;
        let stream = TcpStream::connect_timeout(&address, timeout).map_err(|error| match error.kind() {
            ErrorKind::ConnectionRefused => Stop::Refused,
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Stop::Unanswered,
            kind => Stop::Unreachable(kind.to_string()),
        })?;
        Ok(Self { stream, until })
    }

    fn left(&self) -> io::Result<Duration> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        Ok(left)
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(self.left()?))?;
        self.stream.read(buffer)
    }
}

impl Write for Timed {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        self.stream.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}
