//! The body of a batch: records of the messages one after the other. Spec `messages.md` 5.2.
//!
//! ```text
//!  total length u32 | magic, 0 | CRC, 0 | flag i32 | body length u32, body
//!  | properties length u16, properties
//! ```

/// One message of a batch, borrowed from the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchRecord<'a> {
    pub flag: i32,
    pub body: &'a [u8],
    pub properties: &'a [u8],
}

/// A batch whose lengths do not fit each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the record at byte {at} of the batch is malformed: {reason}")]
pub struct BatchError {
    pub at: usize,
    pub reason: &'static str,
}

/// Bytes of a record beside its body and properties.
const FIXED_LEN: usize = 22;

/// The messages of a batch, in order. After an error nothing more comes.
pub fn records(body: &[u8]) -> impl Iterator<Item = Result<BatchRecord<'_>, BatchError>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        if body.len() <= at {
            return None;
        }
        match split(&body[at..]) {
            Ok((len, record)) => {
                at += len;
                Some(Ok(record))
            }
            Err(reason) => {
                let error = BatchError { at, reason };
                at = body.len();
                Some(Err(error))
            }
        }
    })
}

/// Appends a message to a batch.
pub fn put(out: &mut Vec<u8>, record: &BatchRecord<'_>) {
    let len = FIXED_LEN + record.body.len() + record.properties.len();
    out.extend_from_slice(&(len as u32).to_be_bytes());
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&record.flag.to_be_bytes());
    out.extend_from_slice(&(record.body.len() as u32).to_be_bytes());
    out.extend_from_slice(record.body);
    let properties_len = u16::try_from(record.properties.len()).expect("properties are bounded");
    out.extend_from_slice(&properties_len.to_be_bytes());
    out.extend_from_slice(record.properties);
}

/// The first record and its length.
fn split(bytes: &[u8]) -> Result<(usize, BatchRecord<'_>), &'static str> {
    const TRUNCATED: &str = "the batch ends within it";
    let (len, _) = bytes.split_first_chunk().ok_or(TRUNCATED)?;
    let len = u32::from_be_bytes(*len) as usize;
    let record = bytes.get(..len).ok_or(TRUNCATED)?;
    let rest = record.get(12..).ok_or("it is too short")?;
    let (flag, rest) = rest.split_first_chunk().ok_or("it is too short")?;
    let (body_len, rest) = rest.split_first_chunk().ok_or("it is too short")?;
    let body_len = u32::from_be_bytes(*body_len) as usize;
    let (body, rest) = rest.split_at_checked(body_len).ok_or("its body is longer than it is")?;
    let (properties_len, properties) = rest.split_first_chunk().ok_or("it is too short")?;
    if usize::from(u16::from_be_bytes(*properties_len)) != properties.len() {
        return Err("its properties do not fill it");
    }
    Ok((len, BatchRecord { flag: i32::from_be_bytes(*flag), body, properties }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of `messages.md` 5.2.
    const EXAMPLE: &[u8] = b"\0\0\0\x2e\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x05hello\
        \0\x13WAIT\x01true\x02TAGS\x01tag\x02";

    #[test]
    fn the_example_of_the_specification_is_read_and_written() {
        let properties = b"WAIT\x01true\x02TAGS\x01tag\x02";
        let record = BatchRecord { flag: 0, body: b"hello", properties };
        let twice = [EXAMPLE, EXAMPLE].concat();
        assert_eq!(records(&twice).collect::<Vec<_>>(), [Ok(record), Ok(record)]);
        let mut written = Vec::new();
        put(&mut written, &record);
        assert_eq!(written, EXAMPLE);
    }

    #[test]
    fn a_cut_batch_is_an_error_and_ends() {
        let twice = [EXAMPLE, EXAMPLE].concat();
        for cut in EXAMPLE.len() + 1..twice.len() {
            let read: Vec<_> = records(&twice[..cut]).collect();
            assert_eq!(read.len(), 2, "cut at {cut}");
            assert!(matches!(read[1], Err(BatchError { at: 46, .. })), "cut at {cut}");
        }
        assert_eq!(records(&[0; 8]).count(), 1);
    }
}
