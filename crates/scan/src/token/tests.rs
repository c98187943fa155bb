use std::time::Duration;

use world::RealRandom;

use super::*;
use crate::inventory::{
    Reach,
    tests::{Place, WHO},
};

fn request(name: &str) -> Request {
    Request {
        name: name.to_owned(),
        role: Role::Viewer,
        scope: Scope::default(),
        expires: None,
    }
}

fn add(place: &Place, request: &Request) -> Result<(Token, Zeroizing<String>), Error> {
    let tokens = Tokens::new(place.store.clone()).unwrap();
    let mut transaction = place.store.begin().unwrap();
    let made = tokens.add_in(&mut transaction, request, &RealRandom, place.now(), WHO)?;
    transaction.commit().unwrap();
    Ok(made)
}

#[test]
fn a_token_is_found_by_its_text_alone_until_it_is_revoked_or_ends() {
    let place = Place::new();
    let tokens = Tokens::new(place.store.clone()).unwrap();
    let (token, text) = add(&place, &request("one")).unwrap();
    let (_, other) = add(&place, &request("other")).unwrap();
    assert_eq!(text.len(), LEN);
    assert_ne!(*text, *other);
    let found = tokens.find(Print::of(&text).unwrap()).unwrap().unwrap();
    assert_eq!(found, token);
    assert_eq!(found.standing(place.now()), Standing::Valid);

    let mut transaction = place.store.begin().unwrap();
    let at = place.now();
    tokens.revoke_in(&mut transaction, "one", at, WHO).unwrap();
    transaction.commit().unwrap();
    let found = tokens.find(Print::of(&text).unwrap()).unwrap().unwrap();
    assert_eq!(found.standing(place.now()), Standing::Revoked);

    let end = place.now().plus(Duration::from_secs(60));
    let ending = Request {
        expires: Some(end),
        ..request("ending")
    };
    let (token, _) = add(&place, &ending).unwrap();
    let before = end.minus(Duration::from_nanos(1));
    assert_eq!(token.standing(before), Standing::Valid);
    assert_eq!(token.standing(end), Standing::Expired);
}

#[test]
fn what_cannot_be_a_token_has_no_print_and_what_is_none_is_not_found() {
    let place = Place::new();
    let (_, text) = add(&place, &request("one")).unwrap();
    let tokens = Tokens::new(place.store.clone()).unwrap();
    for wrong in [
        "",
        "hf_",
        &text[..LEN - 1],
        &text[1..],
        &format!("{}x", *text),
    ] {
        assert_eq!(Print::of(wrong), None, "{wrong}");
    }
    let flipped = format!(
        "{}{}",
        &text[..LEN - 1],
        if text.ends_with('A') { 'B' } else { 'A' }
    );
    let print = Print::of(&flipped).unwrap();
    assert_eq!(tokens.find(print).unwrap(), None);
}

#[test]
fn names_are_taken_for_ever_and_unusable_requests_are_refused() {
    let place = Place::new();
    add(&place, &request("one")).unwrap();
    let tokens = Tokens::new(place.store.clone()).unwrap();
    let mut transaction = place.store.begin().unwrap();
    let at = place.now();
    tokens.revoke_in(&mut transaction, "one", at, WHO).unwrap();
    transaction.commit().unwrap();
    let check = |request: Request, kind: Kind| {
        let error = add(&place, &request).unwrap_err();
        assert_eq!(error.kind(), kind, "{request:?}: {error}");
    };
    check(request("one"), Kind::Exists);
    check(request(""), Kind::Invalid);
    check(request("a\nb"), Kind::Invalid);
    let over = Request {
        expires: Some(Timestamp::from_nanos(1)),
        ..request("over")
    };
    check(over, Kind::Invalid);
    let scope = Scope {
        groups: ["a,b".to_owned()].into(),
        ..Scope::default()
    };
    check(
        Request {
            scope,
            ..request("scoped")
        },
        Kind::Invalid,
    );
}

/// The store and the audit log hold what finds a token, and never the token.
#[test]
fn neither_store_nor_audit_log_nor_debug_output_holds_a_token() {
    let place = Place::new();
    let (token, text) = add(&place, &request("one")).unwrap();
    let tokens = Tokens::new(place.store.clone()).unwrap();
    let print = Print::of(&text).unwrap();
    let snapshot = place.store.snapshot().unwrap();
    let mut seen = format!(
        "{token:?} {print:?} {tokens:?} {:?}",
        tokens.list().unwrap()
    );
    for name in [TABLE, "audit.record"] {
        let table = place.store.table(name).unwrap();
        for row in snapshot.range(table, &Keys::all()).unwrap() {
            let (key, value) = row.unwrap();
            seen.push_str(&String::from_utf8_lossy(&key));
            seen.push_str(&String::from_utf8_lossy(&value));
        }
    }
    assert!(seen.contains("token.added"), "{seen}");
    assert!(!seen.contains(&text[PREFIX.len()..]), "{seen}");
}

#[test]
fn a_scope_holds_the_hosts_that_any_part_of_it_names() {
    let mut host = Host::new("web-1", Reach::Local, Timestamp::from_nanos(1));
    host.site = "berlin".to_owned();
    host.groups = ["web".to_owned()].into();
    let set = |name: &str| BTreeSet::from([name.to_owned()]);
    let check = |scope: Scope, is_held: bool| {
        assert_eq!(scope.holds(&host), is_held, "{scope:?}");
    };
    check(Scope::default(), true);
    check(
        Scope {
            sites: set("berlin"),
            ..Scope::default()
        },
        true,
    );
    check(
        Scope {
            sites: set("paris"),
            ..Scope::default()
        },
        false,
    );
    check(
        Scope {
            groups: set("web"),
            ..Scope::default()
        },
        true,
    );
    check(
        Scope {
            hosts: set("web-1"),
            ..Scope::default()
        },
        true,
    );
    check(
        Scope {
            sites: set("paris"),
            hosts: set("web-1"),
            ..Scope::default()
        },
        true,
    );
    check(
        Scope {
            hosts: set("web"),
            ..Scope::default()
        },
        false,
    );
}
