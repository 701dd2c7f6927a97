//! What changes in the image: about one and a half percent of its blocks, without mounting it.

use std::{
    collections::HashSet,
    fmt::Write as _,
    fs::{self, File},
    io::Write,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
};

use super::data::{BLOCK, Dice, Images, MIB, lines, sql};

/// Makes the changed image from the base, whose files are still in `tree`.
pub(crate) fn make(images: &Images, tree: &Path, mib: u64, dice: &mut Dice) {
    fs::copy(&images.base, &images.changed).expect("room for the second image");
    rows(images, tree, mib, dice);
    files(images, tree, mib, dice);
    let file = File::options().write(true).open(&images.changed);
    let file = file.expect("the second image");
    for _ in 0..mib / 4 {
        let at = dice.below(mib * MIB / BLOCK as u64) * BLOCK as u64;
        file.write_all_at(&dice.bytes(BLOCK), at)
            .expect("the image is there");
    }
    let mut delta = File::create(&images.delta).expect("room for the difference");
    for (_, bytes) in differences(&images.base, &images.changed) {
        delta.write_all(&bytes).expect("room for the difference");
    }
}

/// Updates rows all over the database, and writes the pages that differ to where the image has them.
fn rows(images: &Images, tree: &Path, mib: u64, dice: &mut Dice) {
    let (database, before) = (tree.join("database"), tree.join("before"));
    fs::copy(&database, &before).expect("room for the files");
    let ids: HashSet<u64> = (0..mib * 3 / 2)
        .map(|_| 1 + dice.below(mib * 400))
        .collect();
    let mut statements = "PRAGMA journal_mode = OFF; BEGIN;".to_owned();
    for id in ids {
        let _ = write!(
            statements,
            "UPDATE orders SET state = 'settled', amount = amount + 0.25 WHERE id = {id};"
        );
    }
    sql(&database, &(statements + "COMMIT;"));
    let blocks = places(&images.base, &before);
    let image = File::options().write(true).open(&images.changed);
    let image = image.expect("the second image");
    let mut pages = 0;
    for (at, bytes) in differences(&before, &database) {
        let page = usize::try_from(at).unwrap_or(usize::MAX) / BLOCK;
        image
            .write_all_at(&bytes, blocks[page])
            .expect("the image is there");
        pages += 1;
    }
    assert!(pages > mib, "{pages} pages of the database changed");
}

/// Where the image has each page of the database.
fn places(image: &Path, database: &Path) -> Vec<u64> {
    let listed = debugfs(image, &["-R", "blocks /database"]);
    let listed = listed.split_whitespace().flat_map(str::parse::<u64>);
    let [image, database] = [image, database].map(|path| File::open(path).expect("a file"));
    let pages = database.metadata().expect("a file").len() / BLOCK as u64;
    let (mut places, mut page, mut there) = (Vec::new(), vec![0; BLOCK], vec![0; BLOCK]);
    for place in listed.map(|block| block * BLOCK as u64) {
        let at = places.len() as u64;
        if at == pages {
            break;
        }
        database
            .read_exact_at(&mut page, at * BLOCK as u64)
            .expect("a page");
        image.read_exact_at(&mut there, place).expect("a block");
        // The file system's own blocks are listed too.
        if page == there {
            places.push(place);
        }
    }
    assert_eq!(places.len() as u64, pages, "the image has other pages");
    places
}

/// New versions of programs, with bytes inserted in their middle, and another log.
fn files(images: &Images, tree: &Path, mib: u64, dice: &mut Dice) {
    let next = tree.join("next");
    fs::create_dir(&next).expect("room for the files");
    let mut commands = String::new();
    let mut put = |name: &str, bytes: Vec<u8>| {
        let path = next.join(name);
        fs::write(&path, bytes).expect("room for the files");
        let _ = writeln!(commands, "rm {name}\nwrite {} {name}", path.display());
    };
    put("log.1", lines(mib * MIB / 200, dice));
    let mut left = mib * MIB / 256;
    let mut programs: Vec<PathBuf> = entries(tree);
    programs.sort();
    for path in programs {
        let name = path.file_name().and_then(|name| name.to_str());
        let len = fs::metadata(&path).map_or(0, |about| about.len());
        let fits = path.is_file() && (16 << 10..left.min(MIB)).contains(&len);
        // A space would end the name for debugfs.
        let Some(name) = name.filter(|name| fits && !name.contains(' ')) else {
            continue;
        };
        let mut bytes = fs::read(&path).expect("a file of the tree");
        let middle = bytes.len() / 2;
        bytes.splice(middle..middle, dice.bytes(100));
        put(name, bytes);
        left -= len;
    }
    let script = next.join("commands");
    fs::write(&script, commands).expect("room for the files");
    debugfs(&images.changed, &["-w", "-f", &script.to_string_lossy()]);
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// Looks into an ext4 image, or changes it.
fn debugfs(image: &Path, arguments: &[&str]) -> String {
    let output = Command::new("debugfs").args(arguments).arg(image).output();
    let output = output.expect("debugfs is installed");
    assert!(output.status.success(), "debugfs failed");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Where two images of one size differ, and what is there in the second.
pub(crate) fn differences(old: &Path, new: &Path) -> impl Iterator<Item = (u64, Vec<u8>)> {
    let [old, new] = [old, new].map(|path| File::open(path).expect("an image"));
    let len = new.metadata().expect("an image").len();
    let blocks = (0..len).step_by(BLOCK);
    blocks.filter_map(move |at| {
        let [before, after] = [&old, &new].map(|image| {
            let mut block = vec![0; BLOCK];
            image
                .read_exact_at(&mut block, at)
                .expect("an image of whole blocks");
            block
        });
        (before != after).then_some((at, after))
    })
}
