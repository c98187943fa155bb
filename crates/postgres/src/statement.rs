//! Every statement that reads or writes rows. None is put together while the program runs: what varies
//! is a parameter, lists are arrays.

/// Rows at position `$3`. Each row says how far back its table goes; a page without rows says it too.
macro_rules! page_at {
    ($high:literal, $order:literal) => {
        concat!(
            "select n.floor, v.key, v.value from holdfast.name n left join lateral (
                select e.key, x.value from holdfast.entry e
                cross join lateral (
                    select holdfast.value_at(e.tab, e.key, e.version, e.value, $3) as value offset 0
                ) x
                where e.tab = $1 and e.key >= $2 ",
            $high,
            " and x.value is not null order by e.key ",
            $order,
            " limit $4
            ) v on true where n.id = $1 order by v.key ",
            $order
        )
    };
}

/// What is newer than `$3` is left out like what somebody else has claimed: it can wait.
macro_rules! claim {
    ($high:literal) => {
        concat!(
            "select e.key, e.value from holdfast.entry e
            where e.tab = $1 and e.key >= $2 ",
            $high,
            " and e.value is not null and e.version <= $3
            order by e.key limit $4 for update skip locked"
        )
    };
}

/// The order is that of [`TEXTS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Statement {
    Head,
    Retained,
    AtOrBelow,
    Before,
    GetAt,
    PageAt,
    PageAtReverse,
    PageAtEndless,
    PageAtEndlessReverse,
    Claim,
    ClaimEndless,
    Commit,
    Resolve,
    Prune,
}

pub(crate) const TEXTS: [&str; 14] = [
    "select version, at from holdfast.head",
    "select h.version, h.at, h.created, f.floor, (
        select c.at from holdfast.commit c where c.version <= f.floor order by c.version desc limit 1
    ) from holdfast.head h, (select coalesce(min(n.floor), 0) as floor from holdfast.name n) f",
    "select c.at from holdfast.commit c where c.version <= $1 order by c.version desc limit 1",
    "select * from holdfast.commit_before($1, $2)",
    "select n.floor, x.value from unnest($1::int4[], $2::bytea[]) with ordinality k(tab, key, ord)
    left join holdfast.name n on n.id = k.tab
    left join lateral (
        select holdfast.value_at(e.tab, e.key, e.version, e.value, $3) as value
        from holdfast.entry e where e.tab = k.tab and e.key = k.key
    ) x on true order by k.ord",
    page_at!("and e.key < $5", ""),
    page_at!("and e.key < $5", "desc"),
    page_at!("", ""),
    page_at!("", "desc"),
    claim!("and e.key < $5"),
    claim!(""),
    "select o_version, o_at, o_replayed
    from holdfast.commit_at($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
    "select o_version, o_at from holdfast.resolve($1, $2)",
    "select holdfast.prune($1, $2, $3, $4)",
];

impl Statement {
    pub(crate) fn index(self) -> usize {
        self as usize
    }
}
