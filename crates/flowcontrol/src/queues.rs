//! Fair queues: what a level does with requests that cannot be worked on yet. Data only; nothing here waits.
//!
//! Flows are dealt a hand of queues each (shuffle sharding): two that send much hardly ever share all of theirs
//! with a third. Of its hand a request takes the queue with least work. Queues are served in the order of
//! virtual start times (start-time fair queueing), so that each gets the same share of seats.

use std::collections::VecDeque;

use crate::settings::Queuing;

/// A request that waits.
#[derive(Debug)]
pub(crate) struct Waiting<T> {
    pub(crate) id: u64,
    pub(crate) seats: u32,
    start: f64,
    pub(crate) ticket: T,
}

#[derive(Debug)]
pub(crate) struct Queue<T> {
    pub(crate) waiting: VecDeque<Waiting<T>>,
    /// Virtual time at which all that was put in is done.
    finish: f64,
    pub(crate) seats: u32,
}

impl<T> Default for Queue<T> {
    fn default() -> Queue<T> {
        Queue { waiting: VecDeque::new(), finish: 0.0, seats: 0 }
    }
}

#[derive(Debug)]
pub(crate) struct Queues<T> {
    pub(crate) all: Vec<Queue<T>>,
    pub(crate) queuing: Queuing,
    /// Virtual time.
    now: f64,
}

impl<T> Queues<T> {
    pub(crate) fn new(queuing: Queuing) -> Queues<T> {
        let all = (0..queuing.queues).map(|_| Queue::default()).collect();
        Queues { all, queuing, now: 0.0 }
    }

    /// Takes another configuration; nobody who waits is lost.
    pub(crate) fn resize(&mut self, queuing: Queuing) {
        self.queuing = queuing;
        let gone = self.all.split_off(queuing.queues.min(self.all.len()));
        self.all.resize_with(queuing.queues, Queue::default);
        for (index, queue) in gone.into_iter().enumerate() {
            for waiting in queue.waiting {
                self.put(index % queuing.queues, waiting.id, waiting.seats, waiting.ticket);
            }
        }
    }

    /// The queue of a flow; none when that is full.
    pub(crate) fn choose(&self, flow: u64) -> Option<usize> {
        let hand = deal(flow, self.queuing.queues, self.queuing.hand);
        let best = hand.into_iter().min_by_key(|index| self.all[*index].seats)?;
        (self.all[best].waiting.len() < self.queuing.length).then_some(best)
    }

    pub(crate) fn put(&mut self, index: usize, id: u64, seats: u32, ticket: T) {
        let queue = &mut self.all[index];
        let start = queue.finish.max(self.now);
        queue.finish = start + f64::from(seats);
        queue.seats += seats;
        queue.waiting.push_back(Waiting { id, seats, start, ticket });
    }

    /// Seats of the request that is next.
    pub(crate) fn next(&self) -> Option<(usize, u32)> {
        let heads = self.all.iter().enumerate();
        let heads = heads.filter_map(|(index, queue)| Some((index, queue.waiting.front()?)));
        let first = heads.min_by(|(_, a), (_, b)| a.start.total_cmp(&b.start))?;
        Some((first.0, first.1.seats))
    }

    pub(crate) fn take(&mut self, index: usize) -> Option<Waiting<T>> {
        let queue = &mut self.all[index];
        let taken = queue.waiting.pop_front()?;
        queue.seats -= taken.seats;
        self.now = self.now.max(taken.start);
        Some(taken)
    }

    /// Takes out one that waits no longer.
    pub(crate) fn forget(&mut self, id: u64) -> bool {
        for queue in &mut self.all {
            if let Some(at) = queue.waiting.iter().position(|waiting| waiting.id == id) {
                if let Some(gone) = queue.waiting.remove(at) {
                    queue.seats -= gone.seats;
                }
                return true;
            }
        }
        false
    }

    /// Requests and seats that wait.
    pub(crate) fn load(&self) -> (usize, u32) {
        let add = |(requests, seats): (usize, u32), queue: &Queue<T>| {
            (requests + queue.waiting.len(), seats + queue.seats)
        };
        self.all.iter().fold((0, 0), add)
    }
}

/// Different cards of a deck, as the hash says (upstream's `shufflesharding.Dealer`).
fn deal(mut hash: u64, deck: usize, size: usize) -> Vec<usize> {
    let mut hand: Vec<usize> = Vec::with_capacity(size);
    let mut dealt: Vec<usize> = Vec::with_capacity(size);
    for index in 0..size.min(deck) {
        let left = (deck - index) as u64;
        let mut card = usize::try_from(hash % left).unwrap_or(0);
        hash /= left;
        for other in &dealt {
            card += usize::from(card >= *other);
        }
        let at = dealt.partition_point(|other| *other < card);
        dealt.insert(at, card);
        hand.push(card);
    }
    hand
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hand_has_different_cards_and_every_card_comes() {
        let mut seen = [0; 16];
        for hash in 0..10_000_u64 {
            let hand = deal(hash.wrapping_mul(0x9e37_79b9_7f4a_7c15), 16, 4);
            let mut sorted = hand.clone();
            sorted.sort_unstable();
            sorted.dedup();
            assert_eq!(sorted.len(), 4, "{hand:?}");
            hand.iter().for_each(|card| seen[*card] += 1);
        }
        assert!(seen.iter().all(|n| (2_000..3_000).contains(n)), "{seen:?}");
        assert_eq!(deal(u64::MAX, 1, 1), [0]);
    }

    fn queuing(queues: usize) -> Queuing {
        Queuing { queues, hand: 1, length: 10 }
    }

    #[test]
    fn queues_take_turns_by_the_seats_they_asked_for() {
        let mut queues = Queues::new(queuing(2));
        for id in 0..4 {
            queues.put(0, id, 1, ());
        }
        queues.put(1, 10, 2, ());
        queues.put(1, 11, 1, ());
        let mut order = Vec::new();
        while let Some((index, _)) = queues.next() {
            order.push(queues.take(index).expect("it is there").id);
        }
        assert_eq!(order, [0, 10, 1, 2, 11, 3]);
        // A queue that was empty does not get back what it did not use.
        queues.put(1, 20, 1, ());
        queues.put(0, 21, 1, ());
        assert_eq!(queues.next().map(|(index, _)| index), Some(1));
    }

    #[test]
    fn who_waits_survives_another_configuration() {
        let mut queues = Queues::new(queuing(4));
        for id in 0..4 {
            queues.put(id as usize, id, 2, ());
        }
        assert!(queues.forget(2) && !queues.forget(2));
        queues.resize(queuing(2));
        assert_eq!((queues.all.len(), queues.load()), (2, (3, 6)));
    }
}
