// SPDX-License-Identifier: GPL-2.0

//! A model of the list of dirty inodes (`src/track/dirty_list.rs`, the file of the module) under
//! every interleaving the scheduler finds: syncs of all, the flusher, users that store and go,
//! eviction.
//!
//! What must hold:
//!
//! * nobody works on an inode that has left memory, and nothing waits for ever;
//! * when a sync of all returns, what was stored before it began is durable, but for files that
//!   have no name left;
//! * an inode with a dirty page is in the list, and one in the list is dirty for the flusher.
//!
//! Each [`Mistake`] of the surroundings must break one of them, or the model would be blind to it.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Arc;

use dax_model::track::dirty_list;
use shuttle::sync::atomic::Ordering::SeqCst;
use shuttle::sync::mpsc::channel;
use shuttle::thread;

mod world;

use world::{Mistake, Ref, World};

/// What the threads of a scene do.
type Scene = fn(Mistake);

/// A file without a name is stored to and closed while syncs and the flusher are at it.
fn unlinked_goes(mistake: Mistake) {
    let world = World::new(mistake, &[false]);
    let user = world.open(0);
    user.store();
    let threads = vec![
        thread::spawn(move || {
            user.store();
            drop(user);
        }),
        run(&world, |world| world.sync_all()),
        run(&world, |world| world.flush(0)),
        run(&world, |world| world.sync_all()),
    ];
    end(&world, threads);
}

/// A file with a name is stored to, closed, and leaves memory.
fn reclaimed(mistake: Mistake) {
    let world = World::new(mistake, &[true]);
    let user = world.open(0);
    let threads = vec![
        {
            let world = world.clone();
            thread::spawn(move || {
                user.store();
                drop(user);
                world.reclaim(0);
            })
        },
        run(&world, |world| world.sync_all()),
        run(&world, |world| world.reclaim(0)),
    ];
    end(&world, threads);
}

/// The flusher is at a file while it is stored to and all is synced.
fn flushed(mistake: Mistake) {
    let world = World::new(mistake, &[true, true]);
    let users: Vec<Ref> = (0..2).map(|ino| world.open(ino)).collect();
    users[1].store();
    let threads = vec![
        thread::spawn(move || {
            users[0].store();
            users[1].store();
            users[0].store();
        }),
        run(&world, |world| world.sync_all()),
        run(&world, |world| {
            world.flush(0);
            world.flush(1);
            world.flush(0);
        }),
    ];
    end(&world, threads);
}

const SCENES: [Scene; 3] = [unlinked_goes, reclaimed, flushed];

/// Which scene finds each mistake.
const MISTAKES: [(Mistake, Scene); 5] = [
    (Mistake::NoReference, unlinked_goes),
    (Mistake::GrabFreeing, reclaimed),
    (Mistake::NoNotify, reclaimed),
    (Mistake::NoteBeforeTag, flushed),
    (Mistake::MarkBeforeListed, flushed),
];

fn run(world: &Arc<World>, f: impl FnOnce(&Arc<World>) + Send + 'static) -> thread::JoinHandle<()> {
    let world = world.clone();
    thread::spawn(move || f(&world))
}

fn end(world: &Arc<World>, threads: Vec<thread::JoinHandle<()>>) {
    for thread in threads {
        thread.join().unwrap();
    }
    world.check_lists();
    world.sync_all();
}

fn explore(scene: Scene, mistake: Mistake, rounds: usize) {
    shuttle::check_random(move || scene(mistake), rounds);
    shuttle::check_pct(move || scene(mistake), rounds, 3);
}

#[test]
fn holds_in_every_interleaving() {
    let rounds = std::env::var("DAX_MODEL_ROUNDS").map_or(4000, |n| n.parse().expect("a number"));
    for scene in SCENES {
        explore(scene, Mistake::None, rounds);
    }
}

/// Who lists an inode learns whether it was not listed: the flusher is told once.
#[test]
fn an_inode_is_listed_once() {
    let scene = || {
        let world = World::new(Mistake::None, &[true]);
        assert!(dirty_list::note(&*world, 0));
        assert!(!dirty_list::note(&*world, 0));
    };
    shuttle::check_random(scene, 1);
}

/// A sync of all that waits for the flusher does not wait for work that begins later.
#[test]
fn a_sync_of_all_waits_for_what_was_at_work() {
    let scene = || {
        let world = World::new(Mistake::None, &[true, true]);
        // Lists the inode, and is at work on it until something is sent.
        let work = |ino| {
            let ((begun, has_begun), (end, ends)) = (channel(), channel::<()>());
            dirty_list::note(&*world, ino);
            let worker = run(&world, move |world| {
                let write_back = || {
                    begun.send(()).unwrap();
                    ends.recv().unwrap();
                    Ok(())
                };
                dirty_list::sync_one(&**world, ino, write_back).unwrap();
            });
            has_begun.recv().unwrap();
            (worker, end)
        };
        for _ in 0..3 {
            let (earlier, end_earlier) = work(0);
            let waits = world.waits.load(SeqCst);
            let sync = run(&world, |world| world.sync_all());
            while world.waits.load(SeqCst) == waits {
                thread::yield_now();
            }
            let (later, end_later) = work(1);
            end_earlier.send(()).unwrap();
            sync.join().unwrap();
            end_later.send(()).unwrap();
            earlier.join().unwrap();
            later.join().unwrap();
        }
    };
    shuttle::check_random(scene, 20);
}

#[test]
fn every_mistake_is_found() {
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let blind: Vec<Mistake> = MISTAKES
        .into_iter()
        .filter(|(mistake, scene)| {
            let look = || (0..20).for_each(|_| explore(*scene, *mistake, 1000));
            catch_unwind(AssertUnwindSafe(look)).is_ok()
        })
        .map(|(mistake, _)| mistake)
        .collect();
    std::panic::set_hook(quiet);
    assert!(blind.is_empty(), "not found: {blind:?}");
}
