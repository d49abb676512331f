//! The loop that drives all connections of a load.

use std::num::NonZeroU64;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fd::OwnedFd;
use rustix::io::Errno;

use super::link::Link;
use super::pace::Pace;
use super::puller::Puller;
use super::sender::{Born, Moment, Sender};
use super::tally::Tally;

/// How long answers and messages may take that are still missing at the end.
const DRAIN_MAX_NS: u64 = 10_000_000_000;
/// The longest sleep, so that the end of the time is noticed.
const SLEEP_MAX_NS: u64 = 50_000_000;
const EVENTS_MAX: usize = 256;

/// One connection and what it does.
pub struct Station {
    pub link: Link,
    pub role: Role,
}

pub enum Role {
    Send(Sender),
    Pull(Puller),
}

pub struct Load {
    pub stations: Vec<Station>,
    pub pace: Pace,
    /// Told apart from other loads of the same topic.
    pub run: u64,
    pub limits: Limits,
}

pub struct Limits {
    pub warmup: Duration,
    pub duration: Duration,
    /// Messages to send or to read.
    pub count: Option<u64>,
    /// Accepted messages must arrive at a consumer before the load is over.
    pub awaits_arrival: bool,
}

/// What was measured, and how long it took.
pub struct Measured {
    pub tally: Tally,
    /// Until the last message had been read.
    pub seconds: f64,
    /// Until the last send had been answered.
    pub send_seconds: f64,
}

struct Running<'a> {
    load: &'a mut Load,
    tally: Tally,
    clock: Clock,
    born: Born,
    epoll: Option<OwnedFd>,
    events: Vec<Event>,
    /// Where the search for room goes on.
    next_station: usize,
    /// There are no senders.
    only_reads: bool,
    /// Messages that may still be requested.
    remaining: u64,
    is_sending: bool,
    accepted: u64,
    /// Messages that had arrived before the measuring began.
    arrived_before: u64,
    /// When the last send was answered.
    sent_until: Option<u64>,
}

impl Load {
    /// Runs to the end; `on_start` and `on_end` are called where the measuring begins and ends.
    pub fn run(
        &mut self,
        mut on_start: impl FnMut() -> anyhow::Result<()>,
        on_end: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<Measured> {
        let mut running = Running::new(self)?;
        let warm_until = running.load.limits.warmup.as_nanos() as u64;
        let end = warm_until + running.load.limits.duration.as_nanos() as u64;
        let mut begun = None;
        running.first_sends()?;
        loop {
            let now = running.clock.now();
            if begun.is_none() && warm_until <= now {
                begun = Some(now);
                running.arrived_before = running.tally.received.messages;
                running.tally = Tally::default();
                on_start()?;
            }
            if running.is_sending && (end <= now || running.is_enough()) {
                running.is_sending = false;
            }
            let missing = running.missing(now);
            if begun.is_some() && missing == 0 && (!running.is_sending || running.only_reads) {
                break;
            }
            if !running.is_sending && end.saturating_add(DRAIN_MAX_NS) < now {
                running.tally.lost += missing;
                break;
            }
            running.step(now, if begun.is_none() { warm_until } else { end })?;
        }
        let ended = running.clock.now();
        on_end()?;
        let seconds = |until: u64| (until - begun.unwrap_or(0)) as f64 / 1e9;
        let send_seconds = seconds(running.sent_until.unwrap_or(ended));
        Ok(Measured { tally: running.tally, seconds: seconds(ended), send_seconds })
    }
}

impl<'a> Running<'a> {
    fn new(load: &'a mut Load) -> anyhow::Result<Self> {
        // A sleep until the next message is due must not last 50 microseconds longer.
        rustix::thread::set_current_timer_slack(NonZeroU64::new(1))?;
        let epoll = prepare_sockets(load)?;
        first_pulls(load)?;
        Ok(Self {
            tally: Tally::default(),
            clock: Clock::start(),
            born: Born::new(),
            epoll,
            events: Vec::with_capacity(EVENTS_MAX),
            next_station: 0,
            only_reads: load.stations.iter().all(|it| matches!(it.role, Role::Pull(_))),
            remaining: load.limits.count.unwrap_or(u64::MAX),
            is_sending: true,
            accepted: 0,
            arrived_before: 0,
            sent_until: None,
            load,
        })
    }

    /// Without a schedule all windows are filled at once.
    fn first_sends(&mut self) -> anyhow::Result<()> {
        match self.load.pace {
            Pace::Unbounded => (0..self.load.stations.len()).try_for_each(|at| self.refill(at)),
            _ => Ok(()),
        }
    }

    /// Waits for something to happen or for the time of the next message, and goes on from there.
    fn step(&mut self, now: u64, end: u64) -> anyhow::Result<()> {
        if self.epoll.is_none() {
            self.serve(0)?;
            return self.refill(0);
        }
        self.wait(now, end)?;
        if self.only_reads {
            // Consumers stand for other machines, and the scheduler looks who is next only every
            // few milliseconds.
            std::thread::yield_now();
        }
        for at in 0..self.events.len() {
            let place = self.events[at].data.u64() as usize;
            self.serve(place)?;
            self.refill(place)?;
        }
        self.send_due()
    }

    /// Sleeps until a socket has something or the next message is due.
    fn wait(&mut self, now: u64, end: u64) -> anyhow::Result<()> {
        let epoll = self.epoll.as_ref().expect("the caller has looked");
        let is_paced = self.is_sending && !matches!(self.load.pace, Pace::Unbounded);
        let due = self.load.pace.next().filter(|_| is_paced).unwrap_or(u64::MAX);
        let sleep = due.min(end.max(now)).saturating_sub(now).min(SLEEP_MAX_NS);
        let sleep = if self.is_sending { sleep } else { SLEEP_MAX_NS };
        let mut timeout = Timespec { tv_sec: 0, tv_nsec: sleep as i64 };
        if is_paced {
            // The wait of epoll counts in whole milliseconds.
            let mut sockets = [PollFd::new(epoll, PollFlags::IN)];
            interrupted_is_nothing(rustix::event::poll(&mut sockets, Some(&timeout)))?;
            timeout.tv_nsec = 0;
        }
        self.events.clear();
        let events = rustix::buffer::spare_capacity(&mut self.events);
        interrupted_is_nothing(epoll::wait(epoll, events, Some(&timeout)))
    }

    /// Reads what has arrived at a station.
    fn serve(&mut self, place: usize) -> anyhow::Result<()> {
        let Station { link, role } = &mut self.load.stations[place];
        loop {
            let is_more = link.fill()?;
            let now = self.clock.now();
            link.drain(|frame| match role {
                Role::Send(sender) => {
                    match sender.answer(frame, now, &mut self.tally)? {
                        Some(Ok(messages)) => {
                            self.accepted += messages;
                            if !self.load.limits.awaits_arrival {
                                self.load.pace.arrived(now);
                            }
                        }
                        Some(Err(_)) => self.load.pace.arrived(now),
                        None => {}
                    }
                    Ok(())
                }
                Role::Pull(puller) => {
                    puller.answer(frame, now, &mut self.tally, &mut self.load.pace)
                }
            })?;
            if !is_more {
                return Ok(());
            }
        }
    }

    /// Sends what a station has room for, if no schedule says otherwise; and what is left of what
    /// it has to write.
    fn refill(&mut self, place: usize) -> anyhow::Result<()> {
        let now = self.clock.now();
        let is_unbounded = matches!(self.load.pace, Pace::Unbounded);
        let Station { link, role } = &mut self.load.stations[place];
        match role {
            Role::Send(sender) if is_unbounded && self.is_sending => {
                let born = self.born.at(self.clock.wall_ms(now));
                let moment = Moment { run: self.load.run, since: now, born };
                while sender.has_room() && 0 < self.remaining {
                    self.remaining = self.remaining.saturating_sub(sender.batch());
                    sender.send(&mut link.output, &moment);
                }
            }
            Role::Pull(puller) if self.is_sending || self.load.limits.awaits_arrival => {
                puller.pull(&mut link.output, now);
            }
            _ => {}
        }
        link.flush()
    }

    /// Sends the messages whose time has come, going round the stations.
    fn send_due(&mut self) -> anyhow::Result<()> {
        if matches!(self.load.pace, Pace::Unbounded) || !self.is_sending {
            return Ok(());
        }
        let now = self.clock.now();
        let born = self.born.at(self.clock.wall_ms(now));
        let mut is_written = false;
        while 0 < self.remaining
            && let Some(place) = self.station_with_room()
            && let Some(since) = self.load.pace.take(now)
        {
            let moment = Moment { run: self.load.run, since, born };
            let Station { link, role: Role::Send(sender) } = &mut self.load.stations[place] else {
                unreachable!("only senders have room");
            };
            sender.send(&mut link.output, &moment);
            self.remaining = self.remaining.saturating_sub(sender.batch());
            self.next_station = place + 1;
            is_written = true;
            if self.load.pace.is_scheduled() {
                self.tally.late.record(now - since);
            }
        }
        match is_written {
            true => self.load.stations.iter_mut().try_for_each(|station| station.link.flush()),
            false => Ok(()),
        }
    }

    fn station_with_room(&self) -> Option<usize> {
        let count = self.load.stations.len();
        let places = (0..count).map(|step| (self.next_station + step) % count);
        let has_room = |place: &usize| match &self.load.stations[*place].role {
            Role::Send(sender) => sender.has_room(),
            Role::Pull(_) => false,
        };
        places.into_iter().find(has_room)
    }

    fn is_enough(&self) -> bool {
        let count = self.load.limits.count.unwrap_or(u64::MAX);
        self.remaining == 0 || (self.only_reads && count <= self.tally.received.messages)
    }

    /// What was asked for and has not come.
    fn missing(&mut self, now: u64) -> u64 {
        let (mut sends, mut pulls) = (0, 0);
        for station in &self.load.stations {
            match &station.role {
                Role::Send(sender) => sends += sender.unanswered() as u64,
                Role::Pull(puller) => pulls += puller.unanswered() as u64,
            }
        }
        if !self.is_sending && sends == 0 {
            self.sent_until.get_or_insert(now);
        }
        if self.load.limits.awaits_arrival {
            let arrived = self.arrived_before + self.tally.received.messages;
            return sends + self.accepted.saturating_sub(arrived);
        }
        sends + pulls
    }
}

fn interrupted_is_nothing<T>(result: Result<T, Errno>) -> anyhow::Result<()> {
    match result {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Registers the sockets, unless there is a single one with a single request: then a read that
/// blocks says all.
fn prepare_sockets(load: &Load) -> anyhow::Result<Option<OwnedFd>> {
    if let ([Station { link, role: Role::Send(sender) }], Pace::Unbounded) =
        (&load.stations[..], &load.pace)
        && sender.window_len() == 1
    {
        link.stream().set_read_timeout(Some(Duration::from_nanos(SLEEP_MAX_NS)))?;
        return Ok(None);
    }
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    // Edge-triggered: that a socket takes bytes again is told without asking each time.
    let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
    for (place, station) in load.stations.iter().enumerate() {
        station.link.stream().set_nonblocking(true)?;
        epoll::add(&epoll, station.link.stream(), EventData::new_u64(place as u64), flags)?;
    }
    Ok(Some(epoll))
}

/// Pulls are on their way before the clock starts: consumers wait before there is anything.
fn first_pulls(load: &mut Load) -> anyhow::Result<()> {
    for station in &mut load.stations {
        if let Role::Pull(puller) = &mut station.role {
            puller.pull(&mut station.link.output, 0);
            station.link.flush()?;
        }
    }
    if load.limits.awaits_arrival {
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

struct Clock {
    start: Instant,
    start_wall_ms: i64,
}

impl Clock {
    fn start() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { start: Instant::now(), start_wall_ms: wall.as_millis() as i64 }
    }

    /// Nanoseconds since the load began.
    fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    fn wall_ms(&self, now: u64) -> i64 {
        self.start_wall_ms + (now / 1_000_000) as i64
    }
}
