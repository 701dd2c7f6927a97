//! Where an area is: as it is asked for, and as it is told.

use std::path::PathBuf;

use tidemark_proto::v1::StoreConfig;

/// An area as it is asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Area {
    /// A file or a device.
    At(PathBuf),
    /// A logical volume that is to be made, by this name; the agent chooses when it is empty.
    LogicalVolume(String),
}

/// Reads `lv`, `lv:NAME`, or a path.
pub(super) fn parse(text: &str) -> Result<Area, String> {
    match (text, text.strip_prefix("lv:")) {
        ("", _) => Err("name a file, a device, or lv".to_owned()),
        ("lv", _) => Ok(Area::LogicalVolume(String::new())),
        (_, Some("")) => Err("'lv:' wants a name after it; 'lv' leaves it to the agent".to_owned()),
        (_, Some(name)) if name.contains('/') => Err(format!(
            "'{name}' is no name of a logical volume: its group is the origin's. Name a volume \
             that exists by its path, and a file below 'lv:' as ./{text}"
        )),
        (_, Some(name)) => Ok(Area::LogicalVolume(name.to_owned())),
        (path, None) => Ok(Area::At(path.into())),
    }
}

/// Where it is, and what becomes of it.
pub(super) fn line(config: &StoreConfig) -> String {
    let path = &config.area_path;
    match config.logical_volume {
        Some(_) => format!("{path}, made for it, removed by detach"),
        None => path.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_told_from_paths() {
        let made = |name: &str| Ok(Area::LogicalVolume(name.to_owned()));
        assert_eq!(parse("lv"), made(""));
        assert_eq!(parse("lv:home-area"), made("home-area"));
        for path in ["./lv", "lvm", "/dev/vg/lv", "a/lv:b", "./lv:x"] {
            assert_eq!(parse(path), Ok(Area::At(path.into())));
        }
        for wrong in ["", "lv:", "lv:vg/home"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
