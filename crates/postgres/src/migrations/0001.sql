-- Rows, their past, and the one function that commits. Positions rise by one with each commit, which
-- the lock on the row of holdfast.head orders; it is held until the commit is durable, so that whoever
-- sees a position sees everything at or below it.

create table holdfast.head (
    one            boolean primary key default true check (one),
    version        bigint not null,
    at             bigint not null, -- nanoseconds since 1970, as every time here
    created        bigint not null,
    asked          bigint not null default 0, -- no later commit is dated at or before it
    validated_from bigint not null default 0, -- deletions below may be forgotten: older transactions conflict
    moving         text -- where the site comes from, while it is being moved here
) with (fillfactor = 10);

create table holdfast.name (
    id    int primary key,
    name  text not null unique,
    kept  bigint, -- how long a replaced version is kept, in nanoseconds; null: for ever
    floor bigint not null default 0 -- the oldest position that can be read
);

create table holdfast.commit (
    version bigint primary key,
    at      bigint not null unique,
    id      uuid not null unique default gen_random_uuid()
);

-- Commits whose client gave them up: they must not come true later.
create table holdfast.veto (
    id uuid primary key,
    at bigint not null
);

-- Idempotency keys.
create table holdfast.once (
    key     bytea primary key,
    version bigint not null,
    at      bigint not null
);

-- The newest version of each key. A deleted one stays, without a value: a transaction that read it has
-- to meet its version, and a table with history is read as it was by its keys of any time.
create table holdfast.entry (
    tab     int not null,
    key     bytea not null,
    version bigint not null,
    value   bytea,
    primary key (tab, key)
) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);

create index entry_deleted on holdfast.entry (version) where value is null;

-- What was replaced or deleted: seen from version on, until another took its place.
create table holdfast.past (
    tab     int not null,
    key     bytea not null,
    version bigint not null,
    until   bigint not null,
    brief   boolean not null, -- is kept for a while only
    value   bytea not null,
    primary key (tab, key, version)
);

create index past_brief on holdfast.past (until) where brief;

-- The value of a key at p_at, given its newest version.
create function holdfast.value_at(
    p_tab int, p_key bytea, p_version bigint, p_value bytea, p_at bigint
) returns bytea language sql stable as $$
    select case when p_version <= p_at then p_value else (
        select case when q.until > p_at then q.value end
        from (
            select p.until, p.value from holdfast.past p
            where p.tab = p_tab and p.key = p_key and p.version <= p_at
            order by p.version desc limit 1
        ) q
    ) end
$$;

create function holdfast.now_or(p_now bigint) returns bigint language sql volatile as $$
    select coalesce(p_now, (extract(epoch from clock_timestamp()) * 1000000000)::bigint)
$$;

-- One commit, whole. p_now is null but in tests: the server's clock dates the commits of all.
create function holdfast.commit_at(
    p_id uuid, p_seen bigint, p_now bigint, p_date bigint, p_once bytea,
    p_read_tabs int[], p_read_keys bytea[],
    p_range_tabs int[], p_range_lows bytea[], p_range_highs bytea[],
    p_write_tabs int[], p_write_keys bytea[], p_write_values bytea[],
    out o_version bigint, out o_at bigint, out o_replayed boolean
) language plpgsql as $$
declare
    h holdfast.head;
    v_now bigint;
begin
    select * into strict h from holdfast.head for update;
    if exists (select from holdfast.veto v where v.id = p_id) then
        raise exception 'commit % was given up', p_id using errcode = 'serialization_failure';
    end if;
    o_replayed := false;
    if p_once is not null then
        select o.version, o.at into o_version, o_at from holdfast.once o where o.key = p_once;
        if found then
            o_replayed := true;
            return;
        end if;
    end if;
    if h.version > p_seen then
        if p_seen < h.validated_from then
            raise exception 'transaction begun at % is too old to validate', p_seen
                using errcode = 'serialization_failure';
        end if;
        perform 1 from unnest(p_read_tabs, p_read_keys) r(tab, key)
            join holdfast.entry e on e.tab = r.tab and e.key = r.key
            where e.version > p_seen limit 1;
        if found then
            raise exception 'transaction begun at % read a key that was written since', p_seen
                using errcode = 'serialization_failure';
        end if;
        perform 1 from unnest(p_range_tabs, p_range_lows, p_range_highs) r(tab, low, high)
            where r.high is not null and exists (
                select from holdfast.entry e
                where e.tab = r.tab and e.key >= r.low and e.key < r.high and e.version > p_seen
            ) or r.high is null and exists (
                select from holdfast.entry e
                where e.tab = r.tab and e.key >= r.low and e.version > p_seen
            ) limit 1;
        if found then
            raise exception 'transaction begun at % read a range that was written since', p_seen
                using errcode = 'serialization_failure';
        end if;
    end if;

    o_version := h.version + 1;
    -- A row that somebody else holds is a conflict at once: whoever holds the head waits for nobody.
    with old as (
        select e.tab, e.key, e.version, e.value
        from unnest(p_write_tabs, p_write_keys) w(tab, key)
        join holdfast.entry e on e.tab = w.tab and e.key = w.key
        for update of e nowait
    )
    insert into holdfast.past (tab, key, version, until, brief, value)
    select o.tab, o.key, o.version, h.version + 1, n.kept is not null, o.value
    from old o join holdfast.name n on n.id = o.tab
    where o.value is not null;

    insert into holdfast.entry as e (tab, key, version, value)
    select w.tab, w.key, h.version + 1, w.value
    from unnest(p_write_tabs, p_write_keys, p_write_values) w(tab, key, value)
    where w.value is not null or exists (
        select from holdfast.entry x where x.tab = w.tab and x.key = w.key and x.value is not null
    )
    on conflict (tab, key) do update set version = excluded.version, value = excluded.value;

    -- As a wish that is at most a second behind and a millisecond ahead; else the time it is. Above all
    -- commits and above every time that was asked for.
    v_now := holdfast.now_or(p_now);
    o_at := greatest(
        case when p_date >= v_now - 1000000000 then least(p_date, v_now + 1000000) else v_now end,
        h.at + 1, h.asked + 1
    );
    update holdfast.head set version = o_version, at = o_at;
    insert into holdfast.commit (version, at, id) values (o_version, o_at, p_id);
    if p_once is not null then
        insert into holdfast.once (key, version, at) values (p_once, o_version, o_at);
    end if;
end
$$;

-- What became of a commit whose answer was lost: its position, or the promise that it has none. The lock
-- waits for a commit that is still under way.
create function holdfast.resolve(
    p_id uuid, p_now bigint, out o_version bigint, out o_at bigint
) language plpgsql as $$
begin
    perform 1 from holdfast.head for update;
    select c.version, c.at into o_version, o_at from holdfast.commit c where c.id = p_id;
    if not found then
        insert into holdfast.veto (id, at) values (p_id, holdfast.now_or(p_now)) on conflict do nothing;
    end if;
end
$$;

-- The newest commit at or before p_time, which no later commit is dated at or before.
create function holdfast.commit_before(
    p_time bigint, p_now bigint,
    out o_version bigint, out o_at bigint, out o_now bigint,
    out o_created bigint, out o_head_version bigint, out o_head_at bigint
) language plpgsql as $$
declare
    h holdfast.head;
begin
    o_now := holdfast.now_or(p_now);
    select * into strict h from holdfast.head;
    if p_time >= h.at and p_time <= o_now and p_time > h.asked then
        -- Waits for the commit that is under way, which may be dated below.
        update holdfast.head set asked = greatest(asked, p_time) returning * into h;
    end if;
    o_created := h.created;
    o_head_version := h.version;
    o_head_at := h.at;
    select c.version, c.at into o_version, o_at from holdfast.commit c
        where c.at <= p_time order by c.at desc limit 1;
end
$$;

-- Drops what is older than the tables keep, at most p_limit rows of each kind, and says how many.
create function holdfast.prune(p_now bigint, p_least_kept bigint, p_once_kept bigint, p_limit int)
returns bigint language plpgsql as $$
declare
    v_now bigint := holdfast.now_or(p_now);
    v_horizon bigint;
    v_rows bigint;
    v_count bigint;
begin
    perform 1 from holdfast.head for update skip locked;
    if not found then
        return 0;
    end if;
    select c.version into v_horizon from holdfast.commit c
        where c.at <= v_now - p_least_kept order by c.at desc limit 1;
    v_rows := 0;
    if v_horizon is not null then
        -- The floor goes up with what is dropped, in the same commit: a reader that comes too late is
        -- told so, and never reads a hole.
        with old as (
            select p.tab, p.key, p.version from holdfast.past p
            join holdfast.name n on n.id = p.tab
            where p.brief and p.until <= v_horizon and p.until <= coalesce((
                select c.version from holdfast.commit c
                where c.at <= v_now - n.kept order by c.at desc limit 1), 0)
            order by p.until limit p_limit
        ), gone as (
            delete from holdfast.past p using old o
            where p.tab = o.tab and p.key = o.key and p.version = o.version
            returning p.tab, p.until
        ), floors as (
            select tab, max(until) as floor from gone group by tab
        ), raised as (
            update holdfast.name n set floor = greatest(n.floor, f.floor)
            from floors f where n.id = f.tab returning 1
        )
        select count(*) into v_count from gone;
        v_rows := v_rows + v_count;
        -- Only where nothing older of the key is left, or its past would be out of reach.
        with old as (
            select e.tab, e.key, e.version from holdfast.entry e
            join holdfast.name n on n.id = e.tab
            where e.value is null and e.version <= v_horizon and n.kept is not null
            and not exists (select from holdfast.past p where p.tab = e.tab and p.key = e.key)
            order by e.version limit p_limit
        ), gone as (
            delete from holdfast.entry e using old o
            where e.tab = o.tab and e.key = o.key returning e.version
        ), raised as (
            update holdfast.head set validated_from = greatest(validated_from, (select max(version) from gone))
            where exists (select from gone) returning 1
        )
        select count(*) into v_count from gone;
        v_rows := v_rows + v_count;
    end if;
    with old as (
        select o.key from holdfast.once o where o.at < v_now - p_once_kept limit p_limit
    )
    delete from holdfast.once o using old where o.key = old.key;
    delete from holdfast.veto v where v.at < v_now - p_once_kept;
    return v_rows;
end
$$;

-- Makes the head of an empty database and gives numbers to tables that have none, in the order of their
-- names in the call.
create function holdfast.register(p_names text[], p_kept bigint[], p_now bigint, p_first int)
returns void language plpgsql as $$
declare
    v_now bigint := holdfast.now_or(p_now);
begin
    insert into holdfast.head (version, at, created) values (0, v_now, v_now) on conflict do nothing;
    -- One at a time, whatever the process.
    perform 1 from holdfast.head for update;
    insert into holdfast.name (id, name, kept)
        select greatest((select max(n.id) + 1 from holdfast.name n), p_first)
            + row_number() over (order by t.ord) - 1, t.name, t.kept
        from unnest(p_names, p_kept) with ordinality t(name, kept, ord)
        where not exists (select from holdfast.name n where n.name = t.name);
    update holdfast.name n set kept = t.kept
        from unnest(p_names, p_kept) t(name, kept)
        where n.name = t.name and n.kept is distinct from t.kept;
end
$$;
