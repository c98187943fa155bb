-- For people with psql: rows as JSON. A key may hold zero bytes; they are shown as \000.

create function holdfast.json(p_value bytea) returns jsonb language plpgsql immutable as $$
begin
    return convert_from(p_value, 'UTF8')::jsonb;
exception when others then
    return null;
end
$$;

create function holdfast.moment(p_at bigint) returns timestamptz language sql immutable as $$
    select to_timestamp(p_at / 1000000000) + (p_at % 1000000000 / 1000) * interval '1 microsecond'
$$;

create view holdfast.item as
select n.name as in_table, encode(e.key, 'escape') as key, holdfast.json(e.value) as value,
    e.version, holdfast.moment(c.at) as at
from holdfast.entry e
join holdfast.name n on n.id = e.tab
left join holdfast.commit c on c.version = e.version
where e.value is not null;

create view holdfast.host as select key as host, value, version, at from holdfast.item where in_table = 'inventory.host';
create view holdfast.finding as select key, value, version, at from holdfast.item where in_table = 'ledger.state';
create view holdfast.change as select key, value, version, at from holdfast.item where in_table = 'ledger.change';
create view holdfast.scan as select key, value, version, at from holdfast.item where in_table = 'ledger.scan';
create view holdfast.schedule as select key as host, value, version, at from holdfast.item where in_table = 'schedule.host';
create view holdfast.job as select key as job, value, version, at from holdfast.item where in_table = 'queue.job';
create view holdfast.audit as select key, value, version, at from holdfast.item where in_table = 'audit.record';
