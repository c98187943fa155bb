//! Credentials against their clauses.

use std::os::unix::fs::PermissionsExt;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use world::{RealDisk, RealRandom, sim};

use super::*;
use crate::inventory::tests::{Place, WHO, ssh};

/// Markers that must show up nowhere.
const PASSWORD: &str = "s3cret-login-Pa55";
const SUDO: &str = "s3cret-sudo-Pa55";

fn vault(place: &Place) -> Vault {
    Vault::new(
        place.store.clone(),
        Arc::new(RealDisk),
        Arc::new(RealRandom),
        place.dir.path().join(KEYS_DIR),
    )
    .unwrap()
}

fn secret() -> Secret {
    let mut secret = Secret::of_user("admin", Sudo::Password);
    secret.password = Some(Zeroizing::new(PASSWORD.to_owned()));
    secret.sudo_password = Some(Zeroizing::new(SUDO.to_owned()));
    secret
}

fn password(secret: &Secret) -> &str {
    secret.password.as_ref().unwrap()
}

#[test]
fn what_is_sealed_comes_back_and_nothing_of_it_is_in_the_data_directory() {
    let place = Place::new();
    let vault = vault(&place);
    vault.add("default", &secret(), place.now(), WHO).unwrap();
    let found = vault.resolve(&ssh("web1", "10.0.0.1")).unwrap();
    assert_eq!(password(&found), PASSWORD);
    assert_eq!(found.sudo_answer().unwrap().as_str(), SUDO);
    assert_eq!((found.user.as_str(), found.sudo), ("admin", Sudo::Password));

    place.store.checkpoint().unwrap();
    let mut files = 0;
    let mut dirs = vec![place.dir.path().to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
                continue;
            }
            let bytes = std::fs::read(&path).unwrap();
            for word in [PASSWORD, SUDO] {
                let shows = bytes
                    .windows(word.len())
                    .any(|window| window == word.as_bytes());
                assert!(!shows, "{} holds a secret", path.display());
            }
            files += 1;
        }
    }
    assert!(files > 3, "{files} files were looked at");
}

#[test]
fn the_data_key_is_its_owners_alone() {
    let place = Place::new();
    vault(&place).data_key().unwrap();
    let mode = |name: &str| {
        let path = place.dir.path().join(name);
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    };
    assert_eq!(mode("keys/data.key"), 0o600);
    assert_eq!(mode("keys"), 0o700);
}

/// A change anywhere in a row is noticed: in ciphertext, nonce, and all that is shown beside.
///
/// Proves: EXE-3
#[test]
fn any_flipped_byte_of_a_row_makes_it_not_open() {
    let place = Place::new();
    let vault = vault(&place);
    vault.add("default", &secret(), place.now(), WHO).unwrap();
    let host = ssh("web1", "10.0.0.1");
    let row = place
        .store
        .snapshot()
        .unwrap()
        .get(vault.sealed, b"default")
        .unwrap()
        .unwrap();
    let mut flipped = 0;
    for index in 0..row.len() {
        for bit in [0x01, 0x20] {
            let mut bytes = row.to_vec();
            bytes[index] ^= bit;
            let mut transaction = place.store.begin().unwrap();
            transaction.put(vault.sealed, b"default", &bytes).unwrap();
            transaction.commit().unwrap();
            let failure = vault.resolve(&host).unwrap_err();
            assert_eq!(
                failure.reason,
                Reason::CredentialDecryptionFailed,
                "byte {index} of {}: {failure}",
                String::from_utf8_lossy(&bytes)
            );
            flipped += 1;
        }
    }
    assert!(flipped > 600, "{flipped}");
}

/// Proves: EXE-3
#[test]
fn a_ciphertext_in_the_place_of_another_does_not_open() {
    let place = Place::new();
    let vault = vault(&place);
    for name in ["default", "other"] {
        vault.add(name, &secret(), place.now(), WHO).unwrap();
    }
    let host = ssh("web1", "10.0.0.1");
    let put = |row: &Row| {
        let mut transaction = place.store.begin().unwrap();
        let bytes = serde_json::to_vec(row).unwrap();
        transaction.put(vault.sealed, b"default", &bytes).unwrap();
        transaction.commit().unwrap();
        let failure = vault.resolve(&host).unwrap_err();
        assert_eq!(failure.reason, Reason::CredentialDecryptionFailed);
    };
    let row = || vault.row("default").unwrap().unwrap();
    let original = row();

    // The fields of one credential among themselves.
    let mut swapped = row();
    let login = swapped.sealed.remove(&Field::Password).unwrap();
    let root = swapped.sealed.insert(Field::SudoPassword, login).unwrap();
    swapped.sealed.insert(Field::Password, root);
    put(&swapped);
    // A field of another credential, and a whole other credential.
    let other = vault.row("other").unwrap().unwrap();
    put(&other);
    let mut mixed = Row {
        heading: original.heading.clone(),
        sealed: other.sealed,
    };
    put(&mixed);
    // A field left out, as if the credential had fewer.
    mixed.sealed = original.sealed;
    mixed.sealed.remove(&Field::SudoPassword);
    put(&mixed);
    mixed.heading.fields.remove(&Field::SudoPassword);
    put(&mixed);
}

/// Proves: EXE-3
#[test]
#[allow(
    clippy::disallowed_methods,
    reason = "the key file is damaged as an operator would"
)]
fn a_wrong_or_missing_data_key_is_said_to_be_that() {
    let place = Place::new();
    let vault = vault(&place);
    vault.add("default", &secret(), place.now(), WHO).unwrap();
    let host = ssh("web1", "10.0.0.1");
    let path = place.dir.path().join("keys/data.key");
    let key = std::fs::read(&path).unwrap();
    let check = |bytes: Option<&[u8]>, says: &str| {
        match bytes {
            Some(bytes) => std::fs::write(&path, bytes).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
        let failure = vault.resolve(&host).unwrap_err();
        assert_eq!(
            failure.reason,
            Reason::CredentialDecryptionFailed,
            "{failure}"
        );
        assert!(failure.detail.contains(says), "{failure}");
        // Neither is a key made over it, nor anything sealed under a second one: of rows under two
        // keys some could never be opened, whichever file is put back.
        let added = vault.add("b", &secret(), place.now(), WHO).unwrap_err();
        assert_eq!(added.kind(), Kind::Sealed, "{added}");
        assert!(added.to_string().contains(says), "{added}");
    };
    let mut wrong = key.clone();
    wrong[0] ^= 1;
    check(Some(&[1; 31]), "is not a data key");
    check(Some(&[1; 33]), "is not a data key");
    check(Some(&[]), "is not a data key");
    check(Some(&wrong), "under another data key");
    check(None, "is missing");
    std::fs::write(&path, &key).unwrap();
    assert_eq!(password(&vault.resolve(&host).unwrap()), PASSWORD);
    vault.rotate_data_key(place.now(), WHO).unwrap();
}

/// The row is left as it is and only says that it were sealed under the key that is there.
#[test]
fn a_wrong_key_under_the_right_name_does_not_open_either() {
    let place = Place::new();
    let vault = vault(&place);
    vault.add("default", &secret(), place.now(), WHO).unwrap();
    let mut row = vault.row("default").unwrap().unwrap();
    let other = DataKey::random(&sim::Random::new(7)).unwrap();
    row.heading.data_key = other.id();
    assert_eq!(row.open(&other).unwrap_err().kind(), Kind::Sealed);
}

#[test]
fn a_hosts_own_credential_replaces_the_default_one_and_is_never_blended_with_it() {
    let place = Place::new();
    let vault = vault(&place);
    let mut host = ssh("web1", "10.0.0.1");
    let missing = vault.resolve(&host).unwrap_err();
    assert_eq!(missing.reason, Reason::CredentialMissing);

    vault.add("default", &secret(), place.now(), WHO).unwrap();
    host.credential = Some("own".to_owned());
    // Not there: the default one is not taken instead.
    let missing = vault.resolve(&host).unwrap_err();
    assert_eq!(missing.reason, Reason::CredentialMissing);

    let mut own = Secret::of_user("deploy", Sudo::Never);
    own.password = Some(Zeroizing::new("other".to_owned()));
    vault.add("own", &own, place.now(), WHO).unwrap();
    let found = vault.resolve(&host).unwrap();
    assert_eq!((found.user.as_str(), password(&found)), ("deploy", "other"));
    assert!(found.sudo_password.is_none() && found.sudo_answer().is_none());

    host.reach = Reach::Ssh {
        address: "a".to_owned(),
        port: 22,
        user: Some("root".to_owned()),
    };
    assert_eq!(vault.resolve(&host).unwrap().user, "root");
}

#[test]
fn nothing_that_holds_a_secret_shows_it() {
    let place = Place::new();
    let vault = vault(&place);
    let mut all = secret();
    all.private_key = Some(Zeroizing::new("s3cret-key".to_owned()));
    all.passphrase = Some(Zeroizing::new("s3cret-phrase".to_owned()));
    let refused = vault.add("default", &all, place.now(), WHO).unwrap_err();
    vault.add("default", &secret(), place.now(), WHO).unwrap();
    let key = vault.data_key().unwrap();
    let listed = vault.list().unwrap();
    let shown = format!(
        "{all:?} {all:#?} {vault:?} {key:?} {listed:?} {refused:?} {refused} {:?}",
        vault.row("default").unwrap()
    );
    assert!(!shown.contains("s3cret"), "{shown}");
    let key = key.bytes();
    assert!(!shown.contains(&format!("{key:?}")), "{shown}");
    assert!(!shown.contains(&BASE64.encode(key)), "{shown}");
}

/// The key files on a disk that loses its power at each of its effects in turn, the store beside it on
/// one that does not: whatever the moment, every credential opens afterwards.
#[test]
fn a_rotation_of_the_data_key_cut_short_anywhere_leaves_every_credential_to_be_opened() {
    let mut cut = 0;
    for nth in 1.. {
        let place = Place::new();
        let disk = sim::Disk::new(nth);
        let on = |disk: &sim::Disk| {
            Vault::new(
                place.store.clone(),
                Arc::new(disk.clone()),
                Arc::new(sim::Random::new(nth)),
                PathBuf::from("/keys"),
            )
            .unwrap()
        };
        let vault = on(&disk);
        vault.add("default", &secret(), place.now(), WHO).unwrap();
        let before = vault.data_key().unwrap().id();
        disk.crash_at(nth);
        let rotated = vault.rotate_data_key(place.now(), WHO);
        for after in [
            disk.process_death(),
            disk.power_loss(nth),
            disk.power_loss_total(),
        ] {
            let vault = on(&after);
            let found = vault.resolve(&ssh("web1", "10.0.0.1")).unwrap();
            assert_eq!(password(&found), PASSWORD, "cut at {nth}");
            let now = vault.data_key().unwrap().id();
            assert!(rotated.is_err() || now != before);
            assert_eq!(vault.list().unwrap()[0].data_key, now);
            // Nothing of the attempt is in the way of the next.
            let left = vault.files.next().unwrap();
            assert!(left.is_none_or(|left| left.id() != now));
        }
        let after = on(&disk.process_death());
        after.rotate_data_key(place.now(), WHO).unwrap();
        assert!(after.files.next().unwrap().is_none());
        assert_eq!(password(&after.open("default").unwrap()), PASSWORD);
        if rotated.is_ok() {
            break;
        }
        cut += 1;
    }
    assert!(cut >= 5, "only {cut} effects were cut");
}

/// Commands work beside a running `up`, which opens credentials whenever a host is due. One that dropped the
/// next key of a rotation under way would have thrown away the only key to everything.
#[test]
fn a_rotation_under_way_is_not_undone_by_whoever_opens_a_credential_meanwhile() {
    let place = Place::new();
    let vault = vault(&place);
    vault.add("default", &secret(), place.now(), WHO).unwrap();
    let before = vault.data_key().unwrap().id();
    let other = vault.clone();
    let meanwhile = || {
        assert_eq!(password(&other.open("default").unwrap()), PASSWORD);
        assert_eq!(other.data_key().unwrap().id(), before);
        let second = other.rotate_data_key(place.now(), WHO).unwrap_err();
        assert_eq!(second.kind(), Kind::Conflict);
        Ok(())
    };
    let rotated = vault.rotate_data_key_after(place.now(), WHO, &meanwhile);
    assert_eq!(rotated.unwrap(), 1);
    assert_eq!(password(&vault.open("default").unwrap()), PASSWORD);
    let now = vault.data_key().unwrap().id();
    assert_ne!(now, before);
    // Where the next key does not come to the others, nothing is sealed under it.
    let refused = vault.rotate_data_key_after(place.now(), WHO, &|| Err("b is off".to_owned()));
    assert!(refused.unwrap_err().to_string().contains("b is off"));
    assert_eq!(vault.data_key().unwrap().id(), now);
    assert!(vault.files.next().unwrap().is_none());
    assert_eq!(password(&vault.open("default").unwrap()), PASSWORD);
}

#[test]
fn secrets_are_replaced_and_a_credential_in_use_is_not_removed() {
    let place = Place::new();
    let (vault, inventory) = (vault(&place), place.inventory());
    let first = vault.add("default", &secret(), place.now(), WHO).unwrap();
    let mut other = secret();
    other.password = Some(Zeroizing::new("other".to_owned()));
    let second = vault.replace("default", &other, place.now(), WHO).unwrap();
    assert_eq!((first.version, second.version), (1, 2));
    assert!(second.rotated.is_some() && second.added == first.added);
    let host = ssh("web1", "10.0.0.1");
    assert_eq!(password(&vault.resolve(&host).unwrap()), "other");

    let remove = |name: &str, force| vault.remove(&inventory, name, force, place.now(), WHO);
    inventory.add(&host, WHO).unwrap();
    assert_eq!(remove("default", false).unwrap_err().kind(), Kind::InUse);
    assert_eq!(remove("none", false).unwrap_err().kind(), Kind::Missing);
    assert_eq!(remove("default", true).unwrap(), ["web1"]);
    assert_eq!(
        vault.resolve(&host).unwrap_err().reason,
        Reason::CredentialMissing
    );
    inventory.retire("web1", place.now(), WHO).unwrap();
    vault.add("default", &secret(), place.now(), WHO).unwrap();
    assert!(remove("default", false).unwrap().is_empty());
}

#[test]
fn a_secret_that_could_not_log_in_anywhere_is_refused() {
    let place = Place::new();
    let vault = vault(&place);
    let check = |change: &dyn Fn(&mut Secret), says: &str| {
        let mut secret = secret();
        change(&mut secret);
        let error = vault.add("x", &secret, place.now(), WHO).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{error}");
        assert!(error.to_string().contains(says), "{error}");
        assert!(!error.to_string().contains("s3cret"), "{error}");
    };
    let word = |text: &str| Some(Zeroizing::new(text.to_owned()));
    check(&|secret| secret.user = " x".to_owned(), "user");
    check(&|secret| secret.password = None, "needs a key");
    check(&|secret| secret.password = word(""), "0 bytes");
    check(
        &|secret| secret.password = word(&"s3cret".repeat(300)),
        "1800 bytes",
    );
    check(&|secret| secret.password = word("s3cret\nx"), "line break");
    check(
        &|secret| secret.passphrase = word("s3cret"),
        "without a key",
    );
    check(
        &|secret| secret.private_key = word("s3cret"),
        "no private key",
    );
    assert_eq!(
        vault
            .add("a,b", &secret(), place.now(), WHO)
            .unwrap_err()
            .kind(),
        Kind::Invalid
    );
    assert!(vault.list().unwrap().is_empty());
}
