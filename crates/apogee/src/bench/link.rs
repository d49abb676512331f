//! One connection: what is to be written, and what has been read and not yet looked at.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;

use anyhow::{Context, bail};
use apogee_wire::remoting::{FrameRef, frame};

/// Read at once; doubled when a frame is longer.
const INPUT_LEN: usize = 512 << 10;
/// The longest frame of the protocol.
const FRAME_LEN_MAX: usize = 16 << 20;

pub struct Link {
    stream: TcpStream,
    /// Frames to write; the first `written` bytes are done.
    pub output: Vec<u8>,
    written: usize,
    input: Vec<u8>,
    /// What was read and not yet consumed lies in `start..end`.
    start: usize,
    end: usize,
}

impl Link {
    pub fn connect(addr: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(addr).with_context(|| format!("connecting to {addr}"))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            output: Vec::new(),
            written: 0,
            input: vec![0; INPUT_LEN],
            start: 0,
            end: 0,
        })
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Writes as much as the socket takes; without anything to write, nothing.
    pub fn flush(&mut self) -> anyhow::Result<()> {
        while self.written < self.output.len() {
            match self.stream.write(&self.output[self.written..]) {
                Ok(0) => bail!("the server takes no more bytes"),
                Ok(len) => self.written += len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("writing to the server"),
            }
        }
        self.output.clear();
        self.written = 0;
        Ok(())
    }

    /// Reads once. True if more may be waiting: the buffer is full.
    pub fn fill(&mut self) -> anyhow::Result<bool> {
        self.make_room();
        match self.stream.read(&mut self.input[self.end..]) {
            Ok(0) => bail!("the server closed the connection"),
            Ok(len) => self.end += len,
            Err(error) if is_nothing(&error) => return Ok(false),
            Err(error) => return Err(error).context("reading from the server"),
        }
        Ok(self.end == self.input.len())
    }

    /// Gives every whole frame that was read to `each`.
    pub fn drain(
        &mut self,
        mut each: impl FnMut(&FrameRef<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        while let Some(frame) = frame::split(&self.input[self.start..self.end], FRAME_LEN_MAX)? {
            self.start += frame.len;
            each(&frame)?;
        }
        Ok(())
    }

    fn make_room(&mut self) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.input.len() - self.end < self.input.len() / 4 {
            self.input.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end == self.input.len() {
            self.input.resize(2 * self.end, 0);
        }
    }
}

/// A read that a time limit or an empty non-blocking socket ended.
fn is_nothing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}
