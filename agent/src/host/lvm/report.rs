//! What `lvs --reportformat json` prints. Every value is a string.

use serde::Deserialize;

use super::Name;

/// A volume as listed, with what is known of its group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Listed {
    pub(super) name: Name,
    /// Identities as the kernel has them: without dashes.
    pub(super) group_uuid: String,
    pub(super) volume_uuid: String,
    pub(super) extent_bytes: u64,
    pub(super) free_extents: u64,
    pub(super) bytes: u64,
    tags: Vec<String>,
}

impl Listed {
    pub(super) fn has_tag(&self, tag: &str) -> bool {
        self.tags.iter().any(|one| one == tag)
    }
}

#[derive(Deserialize)]
struct Report {
    report: Vec<Part>,
}

#[derive(Deserialize)]
struct Part {
    #[serde(default)]
    lv: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    vg_name: String,
    vg_uuid: String,
    vg_extent_size: String,
    vg_free_count: String,
    lv_name: String,
    lv_uuid: String,
    lv_size: String,
    lv_tags: String,
}

/// Reads a report; says what is wrong with one that cannot be.
pub(super) fn volumes_in(printed: &str) -> Result<Vec<Listed>, String> {
    let report: Report = serde_json::from_str(printed).map_err(|error| error.to_string())?;
    let rows = report.report.into_iter().flat_map(|part| part.lv);
    rows.map(listed).collect()
}

fn listed(row: Row) -> Result<Listed, String> {
    // LVM puts what it hides into brackets.
    let volume = row.lv_name.trim_start_matches('[').trim_end_matches(']');
    let wrong = |field: &str, value: &str| format!("{field} is {value:?}");
    let name = Name::new(&row.vg_name, volume).ok_or_else(|| wrong("the name", &row.lv_name))?;
    let extent_bytes = number(&row.vg_extent_size).filter(|bytes| *bytes > 0);
    Ok(Listed {
        name,
        group_uuid: row.vg_uuid.replace('-', ""),
        volume_uuid: row.lv_uuid.replace('-', ""),
        extent_bytes: extent_bytes.ok_or_else(|| wrong("vg_extent_size", &row.vg_extent_size))?,
        free_extents: number(&row.vg_free_count)
            .ok_or_else(|| wrong("vg_free_count", &row.vg_free_count))?,
        bytes: number(&row.lv_size).ok_or_else(|| wrong("lv_size", &row.lv_size))?,
        tags: row
            .lv_tags
            .split(',')
            .filter(|tag| !tag.is_empty())
            .map(ToOwned::to_owned)
            .collect(),
    })
}

fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}
