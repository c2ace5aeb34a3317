//! The log against a plain map: under failures at every operation, on a full disk, and with every
//! byte damaged in turn.

use std::collections::BTreeMap;

use super::LogEngine;
use super::sim::{Dice, SimDisk};
use crate::engine::{Engine, EngineError, Record, Room};

/// Small, so that short runs see many segments and much compaction.
const SEGMENT: usize = 5000;
const AMPLE: usize = 64 << 20;

type Map = BTreeMap<String, (u64, Vec<u8>)>;

fn open(disk: &SimDisk) -> Result<LogEngine, EngineError> {
    LogEngine::on(Box::new(disk.clone()), SEGMENT)
}

fn read(disk: &SimDisk) -> Result<(LogEngine, Map, u64), EngineError> {
    let mut engine = open(disk)?;
    let mut map = Map::new();
    let revision = engine.load(&mut |record| {
        let value = record.value.expect("only what is alive is loaded");
        let twice = map.insert(record.key, (record.revision, value));
        assert_eq!(twice, None, "a key was loaded twice");
    })?;
    Ok((engine, map, revision))
}

fn record(dice: &mut Dice, revision: u64, keys: u64, largest: u64) -> Record {
    let key = format!("/registry/things/{}", dice.roll(keys));
    let value = vec![dice.roll(256) as u8; dice.roll(largest) as usize];
    Record { key, value: (dice.roll(4) > 0).then_some(value), revision }
}

fn apply(map: &mut Map, batch: &[Record]) {
    for Record { key, value, revision } in batch {
        match value {
            Some(value) => drop(map.insert(key.clone(), (*revision, value.clone()))),
            None => drop(map.remove(key)),
        }
    }
}

/// Commits random batches until the disk fails; the batch that was under way then.
fn work(engine: &mut LogEngine, map: &mut Map, revision: &mut u64, dice: &mut Dice) -> Vec<Record> {
    loop {
        if dice.roll(8) == 0 && engine.tidy().is_err() {
            return Vec::new();
        }
        let count = 1 + dice.roll(4);
        let batch: Vec<Record> =
            (1..=count).map(|n| record(dice, *revision + n, 30, 400)).collect();
        if engine.room(1000).is_err() {
            return Vec::new();
        }
        if engine.commit(&batch).is_err() {
            return batch;
        }
        apply(map, &batch);
        *revision += count;
    }
}

#[test]
fn the_log_equals_a_map_through_kills_and_power_losses_at_random_operations() {
    // More of them by hand, after changes to the format.
    let seeds = std::env::var("STORE_MODEL_SEEDS").ok().and_then(|n| n.parse().ok());
    for seed in 1..=seeds.unwrap_or(40u64) {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let disk = SimDisk::new(AMPLE);
        let (mut map, mut revision) = (Map::new(), 0);
        let mut under_way = Vec::new();
        for round in 0..40 {
            // Opening is interrupted too.
            if dice.roll(3) == 0 {
                disk.fail_after(dice.roll(12));
                drop(read(&disk));
                if dice.roll(2) == 0 { disk.lose_power(&mut dice) } else { disk.restart_process() }
            }
            let what = format!("seed {seed}, round {round}");
            let (mut engine, found, last) = read(&disk).unwrap_or_else(|e| panic!("{what}: {e}"));
            let mut with = map.clone();
            apply(&mut with, &under_way);
            if found == with && last >= revision + under_way.len() as u64 {
                revision += under_way.len() as u64;
                map = with;
            }
            assert_eq!(found, map, "{what}");
            assert_eq!(last, revision, "{what}");
            disk.fail_after(dice.roll(600));
            under_way = work(&mut engine, &mut map, &mut revision, &mut dice);
            if dice.roll(2) == 0 { disk.lose_power(&mut dice) } else { disk.restart_process() }
        }
    }
}

/// A disk with several segments, compaction behind it and under way, and acknowledged writes.
fn lived_in() -> (SimDisk, Map, u64) {
    let disk = SimDisk::new(AMPLE);
    let mut dice = Dice(7);
    let (mut engine, mut map, mut revision) = read(&disk).expect("opens");
    for _ in 0..200 {
        revision += 1;
        let batch = [record(&mut dice, revision, 40, 400)];
        engine.commit(&batch).expect("commits");
        apply(&mut map, &batch);
    }
    drop(engine);
    assert!(disk.names().iter().filter(|(name, _)| name.ends_with(".log")).count() > 2);
    (disk, map, revision)
}

/// Refused with the file's name, or read without a fault: never anything else.
fn refused_or_whole(disk: &SimDisk, name: &str, map: &Map, revision: u64, what: &str) -> bool {
    match read(disk) {
        Ok((_, found, last)) => {
            assert_eq!((&found, last), (map, revision), "wrong after {what}");
            false
        }
        Err(error) => {
            let text = error.to_string();
            assert!(text.contains(&format!("/sim/{name}")), "{what}: {text}");
            assert!(text.contains("restore the store's folder"), "{what}: {text}");
            true
        }
    }
}

#[test]
fn a_flip_of_any_byte_is_refused_or_harmless() {
    let (disk, map, revision) = lived_in();
    let mut refused = 0;
    for (name, size) in disk.names() {
        for at in 0..size {
            let copy = disk.fork();
            copy.flip(&name, at, if at % 2 == 0 { 0xff } else { 1 << (at % 8) });
            let what = format!("byte {at} of {name}");
            refused += usize::from(refused_or_whole(&copy, &name, &map, revision, &what));
        }
    }
    assert!(refused > 8_000, "only {refused} flips were noticed");
}

#[test]
fn a_file_cut_off_anywhere_or_gone_is_refused_or_harmless() {
    let (disk, map, revision) = lived_in();
    for (name, size) in disk.names() {
        for keep in (0..size).step_by(61) {
            let copy = disk.fork();
            copy.cut(&name, keep);
            refused_or_whole(&copy, &name, &map, revision, &format!("{name} cut to {keep}"));
        }
        let copy = disk.fork();
        copy.forget(&name);
        let refused = refused_or_whole(&copy, &name, &map, revision, &format!("{name} gone"));
        assert_eq!(refused, !name.starts_with("spare-"), "{name} gone");
    }
}

/// Damage that compaction meets in the running process stops it, rather than being copied.
#[test]
fn damage_met_by_compaction_stops_the_store() {
    let (disk, _, revision) = lived_in();
    let (mut engine, _, _) = read(&disk).expect("opens");
    let logs = disk.names().into_iter().filter(|(name, _)| name.ends_with(".log"));
    logs.for_each(|(name, _)| disk.flip(&name, super::segment::HEADER + 50, 1));
    let mut dice = Dice(9);
    let failed =
        (1..400).find_map(|n| engine.commit(&[record(&mut dice, revision + n, 12, 300)]).err());
    let text = failed.expect("compaction ran").to_string();
    assert!(text.contains(".log is damaged"), "{text}");
}

#[test]
fn on_a_full_disk_deletions_go_on_and_free_space() {
    let disk = SimDisk::new(12 * SEGMENT);
    let (mut engine, mut map, mut revision) = read(&disk).expect("opens");
    let mut next = 0u64;
    let put = |engine: &mut LogEngine, map: &mut Map, revision: &mut u64, key: u64| {
        *revision += 1;
        let value = Some(vec![1; 200]);
        let batch = [Record { key: format!("k{key:05}"), value, revision: *revision }];
        engine.commit(&batch).expect("there was room");
        apply(map, &batch);
    };
    for _ in 0..5 {
        while engine.room(300).expect("sound") == Room::Plenty {
            put(&mut engine, &mut map, &mut revision, next);
            next += 1;
        }
        assert!(map.len() > 20, "full with {} objects", map.len());
        // Updates may go on for a while, and never take the room of deletions.
        for n in 0..200 {
            if engine.room(300).expect("sound") >= Room::NoGrowth {
                let key = map.keys().nth(n % map.len()).expect("some").clone();
                put(&mut engine, &mut map, &mut revision, key[1..].parse().expect("a number"));
            }
        }
        while let Some(key) = map.keys().next().cloned() {
            assert!(engine.room(100).expect("sound") >= Room::Deletions, "{} left", map.len());
            revision += 1;
            let batch = [Record { key, value: None, revision }];
            engine.commit(&batch).expect("deletions go on");
            apply(&mut map, &batch);
        }
        assert_eq!(engine.room(300).expect("sound"), Room::Plenty, "nothing is left, yet full");
        drop(engine);
        let (again, found, last) = read(&disk).expect("opens");
        assert_eq!((found, last), (Map::new(), revision));
        engine = again;
    }
}

#[test]
fn a_disk_that_grows_takes_writes_again() {
    let disk = SimDisk::new(6 * SEGMENT);
    let (mut engine, _, mut revision) = read(&disk).expect("opens");
    let mut commit = |engine: &mut LogEngine| {
        revision += 1;
        let key = format!("k{revision}");
        engine.commit(&[Record { key, value: Some(vec![1; 300]), revision }]).expect("room");
    };
    while engine.room(400).expect("sound") == Room::Plenty {
        commit(&mut engine);
    }
    disk.set_capacity(AMPLE);
    assert_eq!(engine.room(400).expect("sound"), Room::Plenty);
    (0..50).for_each(|_| commit(&mut engine));
}

#[test]
fn the_folder_stays_small_and_a_mass_deletion_gives_space_back() {
    let disk = SimDisk::new(AMPLE);
    let (mut engine, mut map, mut revision) = read(&disk).expect("opens");
    let mut dice = Dice(11);
    let size = || disk.names().iter().map(|(_, size)| size).sum::<usize>();
    for _ in 0..20_000 {
        revision += 1;
        let batch = [record(&mut dice, revision, 200, 300)];
        engine.commit(&batch).expect("commits");
        apply(&mut map, &batch);
    }
    let live: usize = map.iter().map(|(key, (_, value))| key.len() + value.len() + 16).sum();
    assert!(size() < 2 * live + 8 * SEGMENT, "{} bytes for {live}", size());
    for key in map.keys() {
        revision += 1;
        engine.commit(&[Record { key: key.clone(), value: None, revision }]).expect("commits");
    }
    while engine.tidy().expect("sound") {}
    assert!(size() < 10 * SEGMENT, "{} bytes for nothing", size());
}

/// Records up to nearly a segment's size, so that frames and copies hardly fit.
#[test]
fn large_records_never_make_a_frame_too_long() {
    let disk = SimDisk::new(AMPLE);
    let (mut engine, mut map, mut revision) = read(&disk).expect("opens");
    let mut dice = Dice(13);
    for _ in 0..3_000 {
        revision += 1;
        let batch = [record(&mut dice, revision, 12, SEGMENT as u64 - 200)];
        engine.commit(&batch).expect("fits");
        apply(&mut map, &batch);
        if dice.roll(5) == 0 {
            engine.tidy().expect("fits");
        }
    }
    drop(engine);
    let (_, found, last) = read(&disk).expect("opens");
    assert_eq!((found, last), (map, revision));
}
