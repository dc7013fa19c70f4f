-- The role that walpost connects as.
--
-- LOGIN and REPLICATION are all it needs: it reads the outbox through a logical
-- replication slot, so it has no right to any table, and it owns nothing. Be
-- aware that REPLICATION by itself lets a role read the WAL of the whole
-- cluster: give it to nobody else, and restrict in pg_hba.conf where it may
-- connect from.
--
-- Run it as a role that may create roles. It sets no password, so that none
-- stands in a script: give one with \password in psql. A role that exists
-- already is left as it is.
DO {{tag}}
BEGIN
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = {{literal .Role}}) THEN
        CREATE ROLE {{name .Role}} LOGIN REPLICATION;
    END IF;
END
{{tag}};

GRANT CONNECT ON DATABASE {{name .Database}} TO {{name .Role}};
