//! What a load must know of a cluster before it starts: brokers, queues, offsets.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use apogee_types::config::Perm;
use apogee_types::json;
use apogee_types::route::{ClusterInfo, TopicRouteData};
use apogee_wire::output::Output;
use apogee_wire::remoting::requests::{
    GetBrokerClusterInfo, GetMaxOffset, GetMinOffset, GetRouteInfoByTopic, UpdateAndCreateTopic,
};
use apogee_wire::remoting::{Fields, Header, HeaderEncoding, Request, RequestHead, ResponseCode};

use super::args::Target;
use super::link::Link;

/// Of a topic that is made, without `--queues`.
const QUEUES_OF_NEW_TOPIC: i32 = 8;
/// How long a new topic may take to reach the name server.
const ROUTE_WAIT_MAX: Duration = Duration::from_secs(30);
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(10);

/// A topic's queues on one broker.
pub struct Broker {
    pub name: String,
    pub addr: String,
    pub queue_count: i32,
}

/// Where a topic is.
pub struct Cluster {
    pub name_server: String,
    pub brokers: Vec<Broker>,
}

impl Cluster {
    /// Makes the topic if it is not there, or as `--queues` says.
    pub fn prepare(target: &Target) -> anyhow::Result<Self> {
        let mut calls = name_server(target)?;
        let existing = route(&mut calls, &target.topic)?;
        let wanted = match (&existing, target.queues) {
            (Some(brokers), None) if !brokers.is_empty() => None,
            (_, queues) => Some(queues.unwrap_or(QUEUES_OF_NEW_TOPIC)),
        };
        let brokers = match wanted {
            None => existing.unwrap_or_default(),
            Some(queue_count) => make_topic(&mut calls, &target.topic, queue_count)?,
        };
        Ok(Self { name_server: calls.addr, brokers })
    }
}

/// The name server of the cluster.
pub fn name_server(target: &Target) -> anyhow::Result<Calls> {
    first_that_answers(&crate::produce::name_servers(target.namesrv.clone()))
}

fn first_that_answers(addrs: &str) -> anyhow::Result<Calls> {
    let mut last = None;
    for addr in addrs.split(';').map(str::trim).filter(|addr| !addr.is_empty()) {
        match Calls::connect(addr) {
            Ok(calls) => return Ok(calls),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| anyhow::anyhow!("no name server was given")))
}

/// Makes the topic on every master and waits until the name server knows.
fn make_topic(calls: &mut Calls, topic: &str, queue_count: i32) -> anyhow::Result<Vec<Broker>> {
    let masters = masters(calls)?;
    for addr in &masters {
        let request = UpdateAndCreateTopic {
            topic: topic.to_owned(),
            default_topic: Some("TBW102".to_owned()),
            read_queue_count: queue_count,
            write_queue_count: queue_count,
            perm: Perm::READ_WRITE.0,
            topic_filter_type: Some("SINGLE_TAG".to_owned()),
            topic_sys_flag: Some(0),
            order: false,
            attributes: None,
            force: false,
        };
        Calls::connect(addr)?.call::<UpdateAndCreateTopic>(&request)?.succeeded()?;
    }
    let started = Instant::now();
    loop {
        let brokers = route(calls, topic)?.unwrap_or_default();
        let is_known = brokers.iter().all(|broker| broker.queue_count == queue_count);
        if is_known && masters.len() <= brokers.len() {
            return Ok(brokers);
        }
        if ROUTE_WAIT_MAX < started.elapsed() {
            bail!("the name server {} does not learn of topic `{topic}`", calls.addr);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Addresses of the masters, at least one.
pub fn masters(calls: &mut Calls) -> anyhow::Result<Vec<String>> {
    let body = calls.call::<GetBrokerClusterInfo>(&GetBrokerClusterInfo {})?.succeeded()?;
    let info: ClusterInfo = json::read(&body).context("the cluster's brokers")?;
    let masters = info.broker_addr_table.values().filter_map(|it| it.master());
    let masters: Vec<_> = masters.map(ToString::to_string).collect();
    if masters.is_empty() {
        bail!("the name server {} knows no broker", calls.addr);
    }
    Ok(masters)
}

/// The masters that have the topic; `None` if nobody knows it.
fn route(calls: &mut Calls, topic: &str) -> anyhow::Result<Option<Vec<Broker>>> {
    let request = GetRouteInfoByTopic {
        topic: topic.to_owned(),
        accept_standard_json_only: true,
        zone_mode: false,
        zone_name: None,
    };
    let reply = calls.call::<GetRouteInfoByTopic>(&request)?;
    if reply.code == ResponseCode::TOPIC_NOT_EXIST {
        return Ok(None);
    }
    let route: TopicRouteData = json::read(&reply.succeeded()?).context("the topic's route")?;
    let mut brokers = Vec::new();
    for queues in &route.queue_datas {
        let broker = route.broker_datas.iter().find(|it| it.broker_name == queues.broker_name);
        let Some(addr) = broker.and_then(|broker| broker.master()) else { continue };
        brokers.push(Broker {
            name: queues.broker_name.to_string(),
            addr: addr.to_string(),
            queue_count: queues.write_queue_count,
        });
    }
    Ok(Some(brokers))
}

/// The offsets of the first message of a queue and of the next one.
pub fn offsets(calls: &mut Calls, topic: &str, queue_id: i32) -> anyhow::Result<(i64, i64)> {
    let topic = topic.to_owned();
    let request = GetMinOffset { topic: topic.clone(), queue_id };
    let min = calls.call::<GetMinOffset>(&request)?.offset("the least offset")?;
    let request = GetMaxOffset { topic, queue_id, committed: true };
    let max = calls.call::<GetMaxOffset>(&request)?.offset("the greatest offset")?;
    Ok((min, max))
}

/// A connection on which one request after the other is sent and answered.
pub struct Calls {
    pub addr: String,
    link: Link,
    opaque: i32,
}

pub struct Reply {
    pub code: ResponseCode,
    remark: String,
    pub offset: Option<i64>,
    body: Vec<u8>,
}

impl Calls {
    pub fn connect(addr: &str) -> anyhow::Result<Self> {
        let link = Link::connect(addr)?;
        link.stream().set_read_timeout(Some(Duration::from_millis(100)))?;
        Ok(Self { addr: addr.to_owned(), link, opaque: 0 })
    }

    pub fn call<'a, R: Request>(&mut self, request: &R::At<'a>) -> anyhow::Result<Reply> {
        self.call_with::<R>(request, &[])
    }

    pub fn call_with<'a, R: Request>(
        &mut self,
        request: &R::At<'a>,
        body: &[u8],
    ) -> anyhow::Result<Reply> {
        self.opaque += 1;
        let head = RequestHead {
            encoding: HeaderEncoding::Json,
            code: R::INFO.code,
            opaque: self.opaque,
            oneway: false,
        };
        let mut output = Output::default();
        head.write(&mut output, |put| request.encode(put), |out| out.bytes.extend_from_slice(body));
        self.link.output = output.bytes;
        self.link.flush()?;
        self.reply().with_context(|| format!("{} to {}", R::INFO.name, self.addr))
    }

    fn reply(&mut self) -> anyhow::Result<Reply> {
        let started = Instant::now();
        let mut found = None;
        while found.is_none() {
            if ANSWER_WAIT_MAX < started.elapsed() {
                return Err(std::io::Error::from(ErrorKind::TimedOut).into());
            }
            self.link.fill()?;
            self.link.drain(|frame| {
                let mut index = Vec::new();
                let header = Header::parse(frame, &mut index)?;
                if header.is_response() && header.opaque == self.opaque {
                    let remark = header.remark.map(|text| text.to_cow().into_owned());
                    let offset = header.fields.get("offset").and_then(|text| text.plain());
                    found = Some(Reply {
                        code: ResponseCode(header.code),
                        remark: remark.unwrap_or_default(),
                        offset: offset.and_then(|text| text.parse().ok()),
                        body: frame.body.to_vec(),
                    });
                }
                Ok(())
            })?;
        }
        Ok(found.expect("the loop ended"))
    }
}

impl Reply {
    /// The body of a success.
    pub fn succeeded(self) -> anyhow::Result<Vec<u8>> {
        if self.code != ResponseCode::SUCCESS {
            bail!("{}: {}", self.code, self.remark);
        }
        Ok(self.body)
    }

    fn offset(self, what: &'static str) -> anyhow::Result<i64> {
        let offset = self.offset;
        self.succeeded().context(what)?;
        offset.context(what)
    }
}
