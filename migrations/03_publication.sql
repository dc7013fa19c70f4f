-- The publication that tells Postgres which changes to decode for walpost.
--
-- It covers the inserts of this one table and nothing else, so no other table's
-- changes ever leave the server, and updates and deletes of outbox rows need
-- no replica identity. publish_via_partition_root makes the rows of a
-- partitioned outbox appear under its own name, partitions added later
-- included.
--
-- Run it as the table's owner, who also needs CREATE on the database. It must
-- exist before the slot: what is inserted without a publication can't be
-- decoded afterwards. One that exists already is left as it is; walpost checks
-- at each start that it covers the table.
DO {{tag}}
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_publication WHERE pubname = {{literal .Publication}}) THEN
        CREATE PUBLICATION {{name .Publication}} FOR TABLE {{name .Schema .Table}}
            WITH (publish = 'insert', publish_via_partition_root = true);
    END IF;
END
{{tag}};
