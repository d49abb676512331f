//! Makes a store of so many messages of 1 KiB, to measure with: `fill DIR COUNT`.

#![allow(clippy::unwrap_used, reason = "for developers")]

use std::sync::Arc;

use apogee_store::{RealDisk, Settings, Store};
use apogee_types::{LogOffset, Message, QueueId, SysFlag, SystemClock, tags};

fn main() {
    let mut args = std::env::args().skip(1);
    let (dir, count) = (args.next().unwrap(), args.next().unwrap().parse::<u64>().unwrap());
    let store = Store::open(Arc::new(RealDisk), Arc::new(SystemClock), Settings::at(dir)).unwrap();
    let host = "10.0.0.1:10911".parse().unwrap();
    let mut body = vec![0; 1024];
    for number in 0..count {
        body[..8].copy_from_slice(&number.to_be_bytes());
        let properties = format!("UNIQ_KEY\u{1}AC110001{number:024X}\u{2}TAGS\u{1}a\u{2}");
        let message = Message {
            topic: &format!("topic{}", number % 4),
            queue_id: QueueId::from_wire((number / 4 % 8) as i32).unwrap(),
            flag: 0,
            sys_flag: SysFlag(0),
            born_ms: 1,
            born_host: host,
            store_host: host,
            reconsume_times: 0,
            prepared_at: LogOffset(0),
            body: &body,
            properties: properties.as_bytes(),
            tags_code: tags::code(Some("a")),
        };
        store.append(&message).unwrap();
        store.dispatch(&mut |_| {});
    }
    store.close().unwrap();
}
