//! Name servers and brokers, each a process of its own, in a network in memory.

use std::sync::Arc;
use std::time::Duration;

use apogee_broker::{Broker, Identity};
use apogee_client::{Client, Error, Options};
use apogee_listeners::remoting::names::NameServer;
use apogee_listeners::remoting::registrar::Registrar;
use apogee_listeners::remoting::{self, Door, Router};
use apogee_net::Transport;
use apogee_sim::clock::SimClock;
use apogee_sim::disk::{Faults, SimDisk};
use apogee_sim::net::{SimNet, Weather};
use apogee_store::{Documents, Store};
use apogee_types::Clock;
use apogee_types::config::{Perm, TopicConfig};
use apogee_types::route::TopicRouteData;
use apogee_types::settings::{BrokerSettings, NamesrvSettings, NetSettings, StoreSettings};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

pub const NAMES: &str = "10.0.0.1:9876";
pub const MORE_NAMES: &str = "10.0.0.2:9876";

pub struct World {
    pub net: SimNet,
    pub clock: SimClock,
}

impl World {
    pub fn new() -> Self {
        let weather = Weather { delay_ms_max: 1, reset_one_in: 0 };
        Self { net: SimNet::new(1, weather), clock: SimClock::start(0) }
    }

    pub fn client(&self, name_servers: &[&str]) -> Client {
        Client::new(Options {
            name_servers: name_servers.iter().map(|addr| (*addr).to_owned()).collect(),
            transport: Arc::new(self.net.clone()),
            clock: Arc::new(self.clock),
            seed: 1,
            client_id: Some("c".to_owned()),
        })
    }

    pub async fn name_server(&self, addr: &'static str, settings: NamesrvSettings) -> Process {
        let (clock, disk) = (Arc::new(self.clock), Arc::new(SimDisk::new(1, Faults::default())));
        let names = Arc::new(NameServer::open(settings, clock, disk, None).unwrap());
        let router = remoting::name_server_routes(Router::default());
        let limits = (&NetSettings::default(), &StoreSettings::default());
        let door = Door::new(router, None, Some(names), limits);
        let listener = self.net.listen(addr.parse().unwrap()).await.unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(&door).accept(listener, None));
        tasks.spawn(sweep(door));
        Process { addr, net: self.net.clone(), tasks }
    }

    /// A broker of this name, which registers with these name servers.
    pub fn broker(
        &self,
        name: &str,
        settings: BrokerSettings,
        name_servers: &[&str],
    ) -> Registered {
        let disk = Arc::new(SimDisk::new(1, Faults::default()));
        let clock: Arc<dyn Clock> = Arc::new(self.clock);
        let kept = apogee_store::Settings {
            segment_len: 64 * 1024,
            index_slot_count: 16,
            index_entry_count: 64,
            ..apogee_store::Settings::at("/store")
        };
        let store = Arc::new(Store::open(disk.clone(), Arc::clone(&clock), kept).unwrap());
        let addr = format!("10.0.1.{}:10911", name.len());
        let identity = Identity {
            cluster: settings.broker_cluster_name.clone(),
            name: name.to_owned(),
            id: 0,
            store_host: addr.parse().unwrap(),
        };
        let documents = Documents::new(disk, "/store".as_ref());
        let broker = Broker::new(identity, settings, clock, store, documents, 1).unwrap();
        let broker = Arc::new(broker);
        let limits = (&NetSettings::default(), &StoreSettings::default());
        let router = remoting::broker_routes(Router::default());
        let door = Door::new(router, Some(Arc::clone(&broker)), None, limits);
        let mut tasks = JoinSet::new();
        for name_server in name_servers {
            let registrar = Registrar {
                door: Arc::clone(&door),
                client: self.client(&[name_server]),
                name_server: (*name_server).to_owned(),
                addr: addr.clone(),
                ha_addr: addr.clone(),
            };
            tasks.spawn(registrar.run());
        }
        tasks.spawn(sweep(Arc::clone(&door)));
        Registered { broker, door, tasks }
    }
}

async fn sweep(door: Arc<Door>) {
    loop {
        door.sweep_step();
        sleep(Duration::from_millis(250)).await;
    }
}

pub struct Process {
    addr: &'static str,
    net: SimNet,
    tasks: JoinSet<()>,
}

impl Process {
    pub async fn kill(mut self) {
        self.tasks.shutdown().await;
        self.net.unlisten(self.addr.parse().unwrap());
    }
}

/// A broker and who registers it.
pub struct Registered {
    pub broker: Arc<Broker>,
    door: Arc<Door>,
    tasks: JoinSet<()>,
}

impl Registered {
    pub fn create(&self, topic: &str) {
        let config = TopicConfig::new(topic, 4, Perm::READ_WRITE);
        self.broker.topics.put(config, self.broker.clock.now_ms());
        self.door.topics_changed();
    }

    pub fn delete(&self, topic: &str) {
        self.broker.delete_topic(topic).unwrap();
        self.door.topics_changed();
    }

    pub async fn kill(mut self) {
        self.tasks.shutdown().await;
    }
}

/// What a name server tells of a topic; `None` if nothing.
pub async fn route(client: &Client, topic: &str) -> Option<TopicRouteData> {
    match client.refresh_route(topic).await {
        Ok(route) => Some(route.data().clone()),
        Err(Error::NoRoute { .. }) => None,
        Err(error) => panic!("{error}"),
    }
}

/// Waits until a name server tells of a topic, or does not any more.
pub async fn until_route(client: &Client, topic: &str, is_there: bool, within: Duration) {
    let told = timeout(within, async {
        while client.refresh_route(topic).await.is_ok() != is_there {
            sleep(Duration::from_millis(50)).await;
        }
    });
    told.await.unwrap_or_else(|_| panic!("{topic}: a route, after {within:?}: {}", !is_there));
}
