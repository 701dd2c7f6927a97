//! Interposers over and under each other.

use tidemark_agent::insertion::{Found, InsertionError, check};

use crate::{
    load::Load,
    rig::{Rig, assert_balanced, assert_interposed, lvm, number_of, run, text},
    volumes::{Crypt, Group, Mounted},
};

/// The private origin of one volume is another volume.
#[test]
#[ignore = "runs in a guest"]
fn a_volume_on_the_private_origin_of_another() {
    let group = Group::new("stk1", 96);
    let volume = group.volume("lv", 128, &[]);
    let own = run("dmsetup", &["table", text(&volume)]);
    let mounted = Mounted::new("ext4", &volume);
    let load = Load::start(&mounted.point);
    let (mut outer, mut inner) = (Rig::new(0x51), Rig::new(0x52));
    let (mut upper, _) = outer.attach(&volume);
    let origin = upper.origin().unwrap();
    let found = check(&origin, &[]).unwrap();
    assert!(matches!(found, Found::Live(_)), "{found:?}");
    let (mut lower, _) = inner.attach(&origin);
    assert!(check(&origin, &[]).is_err());
    assert_interposed(&upper);
    assert_interposed(&lower);
    // The outer one would give the volume the inner one's table.
    let refused = upper.remove();
    assert!(
        matches!(refused, Err(InsertionError::Stacked { .. })),
        "{refused:?}"
    );
    // A refresh puts back what the inner origin has; nothing below changes.
    lvm(&["lvchange", "--refresh", &group.path("lv")]);
    assert!(!matches!(
        upper.look().unwrap(),
        tidemark_agent::insertion::Sight::Interposed(_)
    ));
    outer.reinsert(&mut upper);
    assert_interposed(&lower);
    load.finish();
    nix::unistd::sync();
    assert_balanced(&upper);
    assert_balanced(&lower);
    inner.detach(&mut lower);
    assert_interposed(&upper);
    // Once more, and the other way round is refused until the inner one is gone.
    let (mut lower, _) = inner.attach(&origin);
    inner.detach(&mut lower);
    outer.detach(&mut upper);
    assert_eq!(run("dmsetup", &["table", text(&volume)]), own);
    mounted.check();
}

/// Two volumes of one stack, attached and detached in every order.
#[test]
#[ignore = "runs in a guest"]
fn volumes_of_one_stack_in_every_order() {
    let group = Group::new("stk2", 96);
    let lower_node = group.volume("lv", 128, &[]);
    let crypt = Crypt::new("stk2-crypt", &lower_node, &["--disable-keyring"]);
    let upper_node = crypt.node();
    let mounted = Mounted::new("ext4", &upper_node);
    let load = Load::start(&mounted.point);
    let (mut low, mut high) = (Rig::new(0x53), Rig::new(0x54));
    for (low_first, low_last) in [(true, true), (true, false), (false, true), (false, false)] {
        let nodes = (&lower_node, &upper_node);
        let (mut lower, mut upper);
        if low_first {
            lower = low.attach(nodes.0).0;
            upper = high.attach(nodes.1).0;
        } else {
            upper = high.attach(nodes.1).0;
            lower = low.attach(nodes.0).0;
        }
        assert_interposed(&lower);
        assert_interposed(&upper);
        if low_last {
            high.detach(&mut upper);
            low.detach(&mut lower);
        } else {
            low.detach(&mut lower);
            high.detach(&mut upper);
        }
    }
    load.finish();
    mounted.check();
    assert_ne!(number_of(&lower_node), number_of(&upper_node));
    assert_ne!(low.id(), high.id());
}
