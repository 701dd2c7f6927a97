//! Named sets of volumes that are cut together.

use super::{Error, ErrorReason, Manager, validate};

/// A named set of volumes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Its volumes, in the order given.
    pub volumes: Vec<String>,
}

impl Manager {
    /// Makes a group of volumes that are attached.
    pub async fn create_group(&self, group: Group) -> Result<Group, Error> {
        validate::name("group.name", &group.name)?;
        validate::set("group.volumes", &group.volumes)?;
        for volume in &group.volumes {
            validate::name("group.volumes", volume)?;
            self.registry.get(volume)?;
        }
        let made = group.clone();
        let fresh = self
            .ledger
            .run(move |catalog| {
                if catalog.group(&made.name)?.is_some() {
                    return Ok(false);
                }
                catalog.insert_group(&made.name, &made.volumes)?;
                Ok(true)
            })
            .await?;
        if !fresh {
            let why = format!("a group named \"{}\" exists already", group.name);
            return Err(Error::new(ErrorReason::GroupExists, why).with("group", &group.name));
        }
        Ok(group)
    }

    /// Every group, by name.
    pub async fn groups(&self) -> Result<Vec<Group>, Error> {
        self.ledger
            .run(|catalog| {
                let mut groups = Vec::new();
                for name in catalog.groups()? {
                    let volumes = catalog.group(&name)?.unwrap_or_default();
                    groups.push(Group { name, volumes });
                }
                Ok(groups)
            })
            .await
    }

    /// One group.
    pub async fn group(&self, name: &str) -> Result<Group, Error> {
        validate::name("name", name)?;
        let searched = name.to_owned();
        let found = self
            .ledger
            .run(move |catalog| catalog.group(&searched))
            .await?;
        let volumes = found.ok_or_else(|| Error::group_not_found(name))?;
        Ok(Group {
            name: name.to_owned(),
            volumes,
        })
    }

    /// Forgets a group; its volumes and their snapshots stay.
    pub async fn delete_group(&self, name: &str) -> Result<(), Error> {
        validate::name("name", name)?;
        let removed = name.to_owned();
        let known = self
            .ledger
            .run(move |catalog| catalog.remove_group(&removed))
            .await?;
        if known {
            Ok(())
        } else {
            Err(Error::group_not_found(name))
        }
    }
}
