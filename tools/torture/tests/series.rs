// SPDX-License-Identifier: GPL-2.0

//! The torture itself: it does the same for the same seed, and sees what it is there to see.

use rdax_torture::damage::change::Hits;
use rdax_torture::damage::cow::Cow;
use rdax_torture::damage::place::Kind;
use rdax_torture::damage::series::{base, Image};
use rdax_torture::damage::trial::Trial;
use rdax_volume::volume::format::ROOT_INO;
use rdax_volume::volume::pmem::Pmem;

const SEED: u64 = 7;

#[test]
fn a_seed_is_always_the_same_volumes() {
    let (first, second) = (base(SEED, 0), base(SEED, 1));
    assert!(first.bytes == second.bytes && first.stale == second.stale);
    for number in 0..20 {
        let images = [&first, &second].map(|base| Image::new(base, SEED, number));
        let all = images[0].all();
        assert_eq!(images[0].describe(all), images[1].describe(all));
    }
}

#[test]
fn an_undamaged_volume_holds() {
    for number in [0, 256, 512] {
        let base = base(SEED, number);
        let image = Image::new(&base, SEED, number);
        image.run(0).expect("holds");
    }
}

#[test]
fn what_is_lost_is_seen() {
    let base = base(SEED, 0);
    let of_file = |place: &&rdax_torture::damage::place::Place| {
        place.kind == Kind::Inode && place.ino != ROOT_INO && base.tree.contains_key(&place.ino)
    };
    let place = base.places.iter().find(of_file).expect("a file");
    let cow = Cow::new(&base.bytes);
    cow.store(place.at, &vec![0; place.len]).unwrap();
    let mut trial = Trial {
        base: &base,
        hits: Hits::default(),
        seed: 1,
    };
    let fault = trial.run(&cow).expect_err("an inode is lost");
    assert_eq!(fault.rule, "lost, though not hit");
    trial.hits.inodes.insert(place.ino);
    trial.run(&cow).expect("it may be lost");
}
