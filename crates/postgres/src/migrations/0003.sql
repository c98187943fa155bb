-- Moving a site here from a data directory: whose it is, and how far it is. The rows of a finished move
-- stay and tell where the site came from.

create table holdfast.origin (
    site     text primary key, -- identity of the journal that it comes from
    version  bigint not null, -- its newest commit, and the time of that
    at       bigint not null,
    created  bigint not null,
    finished boolean not null default false
);

-- The last key of each table that is here, and whether it was the last of all. Table 0 is the commits.
create table holdfast.moved (
    tab     int primary key,
    last    bytea not null,
    is_done boolean not null
);

-- Makes room for a site, or goes on with the one that was begun. What a site left here that has
-- changed since is removed first. The answer is null where this very site is here already.
create function holdfast.move_begin(
    p_site text, p_version bigint, p_at bigint, p_created bigint
) returns boolean language plpgsql as $$
declare
    h holdfast.head;
    o holdfast.origin;
begin
    select * into strict h from holdfast.head for update;
    select * into o from holdfast.origin where site = p_site;
    if found and o.finished then
        if o.version = p_version and o.at = p_at then
            return null;
        end if;
        raise exception 'this site was moved here, and was written to since where it came from'
            using errcode = 'HF001';
    end if;
    if h.moving is distinct from p_site and (
        h.moving is not null or h.version > 0 or exists (select from holdfast.entry)
    ) then
        raise exception 'the database holds another site' using errcode = 'HF001';
    end if;
    if h.moving is null or o.version is distinct from p_version or o.at is distinct from p_at then
        truncate holdfast.entry, holdfast.past, holdfast.commit, holdfast.moved;
        delete from holdfast.origin where site = p_site;
        insert into holdfast.origin (site, version, at, created) values (p_site, p_version, p_at, p_created);
        update holdfast.head set moving = p_site;
    end if;
    return true;
end
$$;

-- All of it is here: from now on it is a site like any other.
create function holdfast.move_end(p_site text) returns void language plpgsql as $$
declare
    o holdfast.origin;
begin
    perform 1 from holdfast.head where moving = p_site for update;
    if not found then
        raise exception 'no move of this site is under way' using errcode = 'HF001';
    end if;
    select * into strict o from holdfast.origin where site = p_site;
    update holdfast.head set version = o.version, at = o.at, created = o.created, asked = o.at,
        validated_from = o.version, moving = null;
    -- Of these only what they hold came along.
    update holdfast.name set floor = o.version where kept is not null;
    update holdfast.origin set finished = true where site = p_site;
end
$$;
