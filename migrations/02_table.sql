-- The table that applications insert their events into, in the transaction
-- that changes their state.
--
-- The first five columns are the contract that Debezium's outbox also uses, so
-- producers need not care who reads. walpost only ever sees inserts: rows may
-- be deleted as soon as they are written, and the primary key is the only
-- index it takes. created_at serves whoever prunes old rows; it decides
-- nothing about order.
--
-- Run it as the role that owns the application's tables. A table that exists
-- already is left as it is.
CREATE TABLE IF NOT EXISTS {{name .Schema .Table}} (
    {{name .Columns.ID}} uuid PRIMARY KEY,
    {{name .Columns.AggregateType}} varchar(255) NOT NULL,
    {{name .Columns.AggregateID}} varchar(255) NOT NULL,
    {{name .Columns.Type}} varchar(255) NOT NULL,
    {{name .Columns.Payload}} jsonb,
    headers jsonb,
    created_at timestamptz NOT NULL DEFAULT now()
);
