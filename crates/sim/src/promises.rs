//! What a node promises, held against a history and what was found at its end.
//!
//! With synchronous flush nothing that a client saw may ever be gone. With asynchronous flush the
//! same holds while only processes die; a power cut may take what is younger than two flushes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use apogee_store::FlushMode;

use crate::clients::{Ending, KeptQueue};
use crate::history::{Entry, Event, Place};

/// How long what the node said before it died may be on its way to a consumer's handler.
const TRAVEL: Duration = Duration::from_millis(300);

/// Events that are shown with a violation, before and after the one that it is about.
const SHOWN: usize = 6;

/// What of the history does not keep the promises.
#[must_use]
pub fn check(entries: &[Entry], ending: &Ending, flush: FlushMode, slack: Duration) -> Vec<String> {
    let mut check = Check::new(entries, ending, flush, slack);
    check.queues_are_whole();
    check.all_is_found_by_key();
    check.every_body_was_sent();
    check.what_was_seen_is_there();
    check.delayed_messages_are_delivered();
    check.producers_are_in_order();
    check.pulls_go_on_where_they_were();
    check.the_group_has_all();
    check.what_is_wanted_again_comes_again();
    check.commits_last();
    check.violations
}

struct Check<'a> {
    entries: &'a [Entry],
    ending: &'a Ending,
    /// When the power failed and something may have been lost.
    crashes: Vec<Duration>,
    slack: Duration,
    /// At the end: the body of each place, and the places of each body.
    bodies: BTreeMap<Place, &'a str>,
    places: BTreeMap<&'a str, Vec<Place>>,
    /// How often each body was sent, and whether to be delivered later.
    sent: BTreeMap<&'a str, (usize, bool)>,
    violations: Vec<String>,
}

impl<'a> Check<'a> {
    fn new(entries: &'a [Entry], ending: &'a Ending, flush: FlushMode, slack: Duration) -> Self {
        let crashes = entries.iter().filter(|it| it.event == Event::Crashed).map(|it| it.at);
        let crashes = crashes.filter(|_| flush == FlushMode::Async).collect();
        let mut bodies = BTreeMap::new();
        let mut places: BTreeMap<&str, Vec<Place>> = BTreeMap::new();
        for (queue, kept) in &ending.queues {
            for (offset, body) in &kept.messages {
                bodies.insert((*queue, *offset), &**body);
                places.entry(body).or_default().push((*queue, *offset));
            }
        }
        let mut sent: BTreeMap<&str, (usize, bool)> = BTreeMap::new();
        for entry in entries {
            let Event::Sending { bodies, is_delayed, .. } = &entry.event else { continue };
            for body in bodies {
                let (count, delayed) = sent.entry(body).or_default();
                (*count, *delayed) = (*count + 1, *is_delayed);
            }
        }
        let violations = Vec::new();
        Self { entries, ending, crashes, slack, bodies, places, sent, violations }
    }

    /// Whether what was seen at this time may be gone: a crash came before the two next flushes.
    fn may_be_lost(&self, at: Duration) -> bool {
        self.crashes.iter().any(|crash| at <= *crash + TRAVEL && *crash <= at + self.slack)
    }

    /// Adds a violation, with what happened around the event that it is about.
    fn violated(&mut self, about: usize, text: &str) {
        let from = about.saturating_sub(SHOWN);
        let to = (about + SHOWN).min(self.entries.len());
        let mut whole = format!("{text}\n");
        for (at, entry) in self.entries.iter().enumerate().take(to).skip(from) {
            whole += &format!("  {} {entry}\n", if at == about { '>' } else { ' ' });
        }
        self.violations.push(whole);
    }

    fn violated_at_the_end(&mut self, text: &str) {
        self.violated(self.entries.len().saturating_sub(1), text);
    }

    fn queues_are_whole(&mut self) {
        for (queue, KeptQueue { min, max, messages }) in &self.ending.queues {
            let offsets: Vec<i64> = messages.iter().map(|(offset, _)| *offset).collect();
            if *min != 0 || offsets != (*min..*max).collect::<Vec<_>>() {
                self.violated_at_the_end(&format!(
                    "queue {queue} goes from {min} to {max} and has the offsets {offsets:?}"
                ));
            }
        }
    }

    fn all_is_found_by_key(&mut self) {
        let ending = self.ending;
        for body in &ending.unfound {
            self.violated_at_the_end(&format!("{body} is there and not found by its key"));
        }
    }

    fn every_body_was_sent(&mut self) {
        let died = |it: &Entry| matches!(it.event, Event::Killed | Event::Crashed);
        let has_died = self.entries.iter().any(died);
        for (body, places) in &self.places.clone() {
            let Some((count, is_delayed)) = self.sent.get(body).copied() else {
                self.violated_at_the_end(&format!("{body} at {places:?} was never sent"));
                continue;
            };
            // Delivered again by the next start, if the last one did not note that it was.
            let is_repeated = is_delayed && has_died;
            if count < places.len() && !is_repeated {
                self.violated_at_the_end(&format!(
                    "{body} was sent {count} times and is at {places:?}"
                ));
            }
        }
        for (at, entry) in self.entries.iter().enumerate() {
            let (Event::Pulled { body, .. } | Event::Handled { body, .. }) = &entry.event else {
                continue;
            };
            if !self.sent.contains_key(&**body) {
                self.violated(at, &format!("{body} was never sent"));
            }
        }
    }

    /// What was acknowledged or shown to a consumer.
    fn what_was_seen_is_there(&mut self) {
        for (at, entry) in self.entries.iter().enumerate() {
            let (first, bodies) = match &entry.event {
                Event::Acknowledged { place, bodies } => (*place, &bodies[..]),
                Event::Pulled { place, body, .. } => (*place, std::slice::from_ref(body)),
                Event::Handled { place: Some(place), body, .. } => {
                    (*place, std::slice::from_ref(body))
                }
                _ => continue,
            };
            for (place, body) in (first.1..).map(|offset| (first.0, offset)).zip(bodies) {
                let found = self.bodies.get(&place).copied();
                if found != Some(body) && !self.may_be_lost(entry.at) {
                    self.violated(at, &format!("{body} was at {place:?}, where now is {found:?}"));
                }
            }
        }
    }

    fn delayed_messages_are_delivered(&mut self) {
        let mut wanted = BTreeMap::new();
        for (at, entry) in self.entries.iter().enumerate() {
            match &entry.event {
                Event::Sending { queue: Some(queue), bodies, is_delayed: true } => {
                    wanted.insert(&*bodies[0], *queue);
                }
                Event::AcknowledgedDelayed { body } => {
                    let places = self.places.get(&**body).cloned().unwrap_or_default();
                    let is_there = places.iter().any(|it| wanted.get(&**body) == Some(&it.0));
                    if !is_there && !self.may_be_lost(entry.at) {
                        self.violated(at, &format!("{body} was not delivered to its queue"));
                    }
                }
                _ => {}
            }
        }
    }

    /// A producer sends one after the other: in each queue they stand in this order. What was
    /// sent more than once may stand anywhere, and so may what is delayed.
    fn producers_are_in_order(&mut self) {
        let mut last: BTreeMap<(i32, String), (u32, i64)> = BTreeMap::new();
        for (place, body) in &self.bodies.clone() {
            let Some((1, false)) = self.sent.get(body) else { continue };
            let name = body.split('/').next().unwrap_or(body);
            let Some((producer, count)) = name.split_once('-') else { continue };
            let count = count.parse().unwrap_or(0);
            let key = (place.0, producer.to_owned());
            if let Some((before, at)) = last.insert(key, (count, place.1))
                && count < before
            {
                self.violated_at_the_end(&format!(
                    "queue {}: {producer}-{before} at {at} stands before {body} at {}",
                    place.0, place.1
                ));
            }
        }
    }

    fn pulls_go_on_where_they_were(&mut self) {
        for (at, entry) in self.entries.iter().enumerate() {
            let Event::Moved { by, queue, from, to } = &entry.event else { continue };
            if self.crashes.iter().all(|crash| entry.at < *crash) {
                let text = format!("{by} pulled queue {queue} at {from} and was sent to {to}");
                self.violated(at, &text);
            }
        }
    }

    /// The group handled every acknowledged message that is still there. Offsets that a crash
    /// gave out twice it may pass over: it has been there.
    fn the_group_has_all(&mut self) {
        let mut handled = BTreeSet::new();
        let mut reused = BTreeSet::new();
        for entry in self.entries {
            match &entry.event {
                Event::Handled { body, .. } => drop(handled.insert(&**body)),
                Event::Shortened { queue, to, from } => {
                    reused.extend((*to..*from).map(|offset| (*queue, offset)));
                }
                _ => {}
            }
        }
        for (at, entry) in self.entries.iter().enumerate() {
            let bodies = match &entry.event {
                Event::Acknowledged { bodies, .. } => &bodies[..],
                Event::AcknowledgedDelayed { body } => std::slice::from_ref(body),
                _ => continue,
            };
            for body in bodies.iter().filter(|body| !handled.contains(&***body)) {
                let places = self.places.get(&**body).cloned().unwrap_or_default();
                if !places.is_empty() && !places.iter().all(|place| reused.contains(place)) {
                    self.violated(at, &format!("{body} at {places:?} never reached the group"));
                }
            }
        }
    }

    fn what_is_wanted_again_comes_again(&mut self) {
        let mut again = BTreeSet::new();
        for (at, entry) in self.entries.iter().enumerate().rev() {
            let Event::Handled { body, wants_again, .. } = &entry.event else { continue };
            let came_again = !again.insert(body);
            // It is sent back when the handler is done, and again if that fails.
            let is_lost = self.crashes.iter().any(|crash| entry.at <= *crash + TRAVEL);
            if *wants_again && !came_again && !is_lost && !self.was_done_by_another(at) {
                self.violated(at, &format!("{body} was to come again and did not"));
            }
        }
    }

    /// Whether the message of this entry had been handled by another member, from the same place:
    /// two may have it while a queue changes hands, and the one goes on behind it.
    fn was_done_by_another(&self, at: usize) -> bool {
        let Event::Handled { by, place, body, .. } = &self.entries[at].event else { return false };
        self.entries[..at].iter().any(|entry| {
            matches!(&entry.event, Event::Handled { by: other, place: its, body: same, wants_again }
                if other != by && its == place && same == body && !wants_again)
        })
    }

    /// A committed offset is there at the end; after a death, an older one may be.
    fn commits_last(&mut self) {
        for (queue, found) in &self.ending.committed.clone() {
            let mut tried: BTreeSet<Option<i64>> = [None].into();
            let mut possible = tried.clone();
            let mut died = None;
            for entry in self.entries {
                match &entry.event {
                    Event::Committing { queue: of, offset } if of == queue => {
                        tried.insert(Some(*offset));
                        possible.insert(Some(*offset));
                    }
                    // One that was on its way when the node died says nothing.
                    Event::Committed { queue: of, offset }
                        if of == queue && died.is_none_or(|died| died + TRAVEL < entry.at) =>
                    {
                        possible = [Some(*offset)].into();
                    }
                    Event::Killed | Event::Crashed => {
                        died = Some(entry.at);
                        possible.clone_from(&tried);
                    }
                    _ => {}
                }
            }
            if !possible.contains(found) {
                self.violated_at_the_end(&format!(
                    "queue {queue}: {found:?} is committed, not one of {possible:?}"
                ));
            }
        }
    }
}
