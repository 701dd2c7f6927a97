use super::*;

/// As LVM 2.03 prints it, blanks included; the second group's name has a dash, its volume is hidden.
const PRINTED: &str = r#"  {
      "report": [
          {
              "lv": [
                  {"vg_name":"vg", "vg_uuid":"AbcdEf-0000-1111-2222-3333-4444-555555", "vg_extent_size":"4194304", "vg_free_count":"100", "lv_name":"home", "lv_uuid":"GhijKl-0000-1111-2222-3333-4444-666666", "lv_size":"67108864", "lv_tags":""},
                  {"vg_name":"vg", "vg_uuid":"AbcdEf-0000-1111-2222-3333-4444-555555", "vg_extent_size":"4194304", "vg_free_count":"100", "lv_name":"[lvol0_pmspare]", "lv_uuid":"x", "lv_size":"4194304", "lv_tags":"mine,tidemark.volume.01"}
              ]
          }
      ]
  }"#;

fn wanted() -> Wanted {
    Wanted {
        name: Name::new("vg", "home-tidemark").unwrap(),
        bytes: 256 << 20,
        tags: vec!["tidemark.area".to_owned(), "tidemark.volume.01".to_owned()],
    }
}

#[test]
fn a_report_is_read() {
    let listed = volumes_in(PRINTED).unwrap();
    assert_eq!(listed[0].name.path(), Path::new("/dev/vg/home"));
    assert_eq!(listed[0].group_uuid, "AbcdEf00001111222233334444555555");
    assert_eq!(listed[0].bytes, 64 << 20);
    assert_eq!(
        (listed[0].extent_bytes, listed[0].free_extents),
        (4 << 20, 100)
    );
    assert_eq!(listed[1].name.volume(), "lvol0_pmspare");
    assert!(listed[1].has_tag("tidemark.volume.01") && listed[1].has_tag("mine"));
    assert!(!listed[0].has_tag("") && !listed[1].has_tag("tidemark.volume"));
    assert_eq!(volumes_in(r#"{"report":[{"lv":[]}]}"#), Ok(Vec::new()));
    assert_eq!(volumes_in(r#"{"report":[{}], "log":[]}"#), Ok(Vec::new()));
}

#[test]
fn a_report_that_makes_no_sense_says_what_is_wrong() {
    for (from, to, said) in [
        ("\"67108864\"", "\"64.00m\"", "lv_size"),
        (
            "\"vg_extent_size\":\"4194304\"",
            "\"vg_extent_size\":\"0\"",
            "vg_extent_size",
        ),
        (
            "\"vg_free_count\":\"100\"",
            "\"vg_free_count\":\"-1\"",
            "vg_free_count",
        ),
        ("\"lv_name\":\"home\"", "\"lv_name\":\"../home\"", "name"),
        ("\"lv_name\":\"home\", ", "", "lv_name"),
        ("  {\n", "", "column"),
    ] {
        let error = volumes_in(&PRINTED.replacen(from, to, 1)).unwrap_err();
        assert!(error.contains(said), "{said}: {error}");
    }
}

#[test]
fn commands_are_these_words() {
    let create = "lvm lvcreate --yes --type linear --activate y --zero y --wipesignatures y \
                  --name home-tidemark --size 268435456b --addtag tidemark.area --addtag \
                  tidemark.volume.01 vg";
    assert_eq!(Argv::create(&wanted()).to_string(), create);
    let remove = "lvm lvremove --yes --select lv_tags={\"tidemark.volume.01\"} vg";
    assert_eq!(Argv::remove("vg", "tidemark.volume.01").to_string(), remove);
    let activate = Argv::activate(&wanted().name);
    assert_eq!(
        activate.to_string(),
        "lvm lvchange --activate y vg/home-tidemark"
    );
    let list = Argv::list_tagged("vg", "t").to_string();
    assert!(list.ends_with(" --select lv_tags={\"t\"} vg"), "{list}");
    assert!(list.contains("--reportformat json --units b --nosuffix"));
    assert!(Argv::list("vg").to_string().starts_with("lvm lvs --all "));
}

#[test]
fn names_are_those_that_lvm_gives() {
    for name in ["a", "my-vg", "_x.1+2"] {
        assert!(Name::new("vg", name).is_some(), "{name}");
    }
    for name in ["", "-a", ".", "..", "a/b", "a b", "ä", &"x".repeat(128)] {
        assert!(Name::new("vg", name).is_none(), "{name}");
        assert!(Name::new(name, "lv").is_none(), "{name}");
    }
    let name = Name::of_path(Path::new("/dev/vg/home")).unwrap();
    assert_eq!((name.group(), name.volume()), ("vg", "home"));
    for path in [
        "/dev/vg",
        "/dev/vg/a/b",
        "/srv/vg/home",
        "vg/home",
        "/dev/vg/",
    ] {
        assert_eq!(Name::of_path(Path::new(path)), None, "{path}");
    }
}

#[test]
fn space_is_counted_in_whole_extents() {
    let group = Group {
        name: "vg".to_owned(),
        extent_bytes: 4 << 20,
        free_extents: 3,
        volume: "home".to_owned(),
        volume_bytes: 1 << 30,
        taken: Vec::new(),
    };
    assert_eq!(group.extents_for(1).unwrap(), 1);
    assert_eq!(group.extents_for(12 << 20).unwrap(), 3);
    let error = group.extents_for((12 << 20) + 1).unwrap_err();
    assert!(
        matches!(error, LvmError::NoSpace { free_bytes, needed_bytes, .. }
            if free_bytes == 12 << 20 && needed_bytes == 16 << 20),
        "{error}"
    );
}

#[test]
fn only_a_logical_volume_has_a_group() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    std::fs::write(&image, [0; 512]).unwrap();
    let error = Lvm.group_of(&image).unwrap_err();
    assert!(matches!(error, LvmError::NotLogical { .. }), "{error}");
    let missing = Lvm.group_of(&folder.path().join("none")).unwrap_err();
    assert!(matches!(missing, LvmError::Io { .. }), "{missing}");
}

#[test]
fn identities_are_those_of_a_volume_that_can_be_seen() {
    let both = "AbcdEf00001111222233334444555555GhijKl00001111222233334444666666";
    let identity = identity_in(&format!("LVM-{both}")).unwrap();
    assert_eq!(identity.volume, "GhijKl00001111222233334444666666");
    for uuid in [
        format!("LVM-{both}-tpool"),
        both.to_owned(),
        "LVM-x".to_owned(),
    ] {
        assert!(identity_in(&uuid).is_none(), "{uuid}");
    }
}
