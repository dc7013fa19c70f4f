package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/walpost/walpost/internal/config"
	"github.com/walpost/walpost/migrations"
	"github.com/walpost/walpost/outbox"
	"github.com/walpost/walpost/outbox/mapping"
	"github.com/walpost/walpost/replication"
)

// This file is the part of Init that speaks SQL: the table, the publication,
// and the rows that were there before the slot.

func migrationParams(cfg *config.Config) migrations.Params {
	c := cfg.Outbox.Columns
	return migrations.Params{
		Role: cfg.Postgres.URL.User(), Database: cfg.Postgres.URL.Database(),
		Schema: cfg.Outbox.Table.Schema, Table: cfg.Outbox.Table.Name, Publication: cfg.Postgres.Publication,
		Columns: migrations.Columns{ID: c.ID, AggregateType: c.AggregateType, AggregateID: c.AggregateID, Type: c.Type, Payload: c.Payload},
	}
}

func printSQL(out io.Writer, steps []migrations.Step) error {
	for _, s := range steps {
		if _, err := fmt.Fprintln(out, s.SQL); err != nil {
			return fmt.Errorf("print SQL: %w", err)
		}
	}
	return nil
}

// provision makes the table and the publication where they are missing.
func (i *initialisation) provision(ctx context.Context, facts replication.Facts) error {
	conn, err := i.connect(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	columns, err := i.tableColumns(ctx, conn)
	if err != nil {
		return err
	}
	for _, s := range i.steps {
		missing := s.Name == migrations.StepTable && len(columns) == 0 || s.Name == migrations.StepPublication && facts.Publication == nil
		if !missing {
			continue
		}
		if _, err := conn.Exec(ctx, s.SQL); err != nil {
			return provisionError(s.Name, err)
		}
		i.say("%s: created", s.Name)
	}
	return i.checkTable(ctx, conn)
}

func provisionError(step string, err error) error {
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == "42501" {
		return &missingRight{step, err}
	}
	return fmt.Errorf("init: create %s: %w", step, err)
}

// missingRight says that the role may not do what only an owner may.
type missingRight struct {
	step string
	err  error
}

func (m *missingRight) Error() string { return fmt.Sprintf("init: create %s: %v", m.step, m.err) }
func (m *missingRight) Unwrap() error { return m.err }
func (m *missingRight) Remedy() string {
	return "let an owner of the database run what `walpost init --print-sql` prints, then run `walpost init` again"
}

// checkTable finds a mapping that the table doesn't fit before the first event
// does.
func (i *initialisation) checkTable(ctx context.Context, conn *pgx.Conn) error {
	columns, err := i.tableColumns(ctx, conn)
	if err != nil {
		return err
	}
	t := i.cfg.Outbox.Table
	if len(columns) == 0 {
		return fmt.Errorf("init: table %s does not exist", t)
	}
	source := outbox.Source{Pipeline: i.cfg.Pipeline, Shard: shard} // a plan is made; no row is mapped
	mapper, err := mapping.New(mapping.Config{Source: source.String(), Tables: tables(i.cfg)})
	if err != nil {
		return fmt.Errorf("init: %w", err)
	}
	if _, err := mapper.Plan(t.Schema, t.Name, columns); err != nil {
		return fmt.Errorf("init: %w", err)
	}
	i.say("table %s: fits the mapping", t)
	return nil
}

// tableColumns reads the catalog, which needs no right on the table. None
// means that there is no such table.
func (i *initialisation) tableColumns(ctx context.Context, conn *pgx.Conn) ([]mapping.Column, error) {
	t := i.cfg.Outbox.Table
	rows, err := conn.Query(ctx, `SELECT a.attname, a.atttypid::oid::int8 FROM pg_attribute a
		JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = $1 AND c.relname = $2 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum`, t.Schema, t.Name)
	if err != nil {
		return nil, fmt.Errorf("init: look up table %s: %w", t, err)
	}
	columns, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (mapping.Column, error) {
		var name string
		var oid int64
		err := row.Scan(&name, &oid)
		return mapping.Column{Name: name, TypeOID: uint32(oid)}, err //nolint:gosec // an oid
	})
	if err != nil {
		return nil, fmt.Errorf("init: look up table %s: %w", t, err)
	}
	return columns, nil
}

const connectTimeout = 5 * time.Second

// judgeExisting looks at exactly the rows that are older than the slot: those
// its snapshot shows.
func (i *initialisation) judgeExisting(ctx context.Context, snapshot string) error {
	if i.opts.Existing == ExistingIgnore {
		i.say("rows older than the slot: ignored, as asked")
		return nil
	}
	conn, err := i.connect(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	found, err := rowsIn(ctx, conn, snapshot, i.cfg.Outbox.Table)
	var pg *pgconn.PgError
	switch {
	case errors.As(err, &pg) && pg.Code == "42501":
		return fmt.Errorf("init: whether %s holds rows older than the slot can't be seen without SELECT on it; grant that for now, or say --existing=ignore to leave such rows unpublished", i.cfg.Outbox.Table)
	case err != nil:
		return fmt.Errorf("init: look for rows older than the slot in %s: %w", i.cfg.Outbox.Table, err)
	case found:
		return fmt.Errorf("init: %s holds rows older than the slot, which the slot will never yield; --existing=ignore leaves them unpublished", i.cfg.Outbox.Table)
	}
	return nil
}

func rowsIn(ctx context.Context, conn *pgx.Conn, snapshot string, t config.Table) (found bool, err error) {
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return false, err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	// Row security would hide rows from the question instead of failing it.
	for _, sql := range []string{
		"SET TRANSACTION SNAPSHOT '" + strings.ReplaceAll(snapshot, "'", "''") + "'",
		"SET LOCAL row_security = off",
	} {
		if _, err := tx.Exec(ctx, sql); err != nil {
			return false, err
		}
	}
	err = tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM "+pgx.Identifier{t.Schema, t.Name}.Sanitize()+")").Scan(&found)
	return found, err
}

func (i *initialisation) connect(ctx context.Context) (*pgx.Conn, error) {
	conf, err := pgx.ParseConfig(i.cfg.Postgres.URL.Reveal())
	if err != nil {
		return nil, errors.New("init: postgres.url can't be parsed") // pgx's own error may quote a password
	}
	conf.ConnectTimeout = connectTimeout
	replication.SeekPrimary(&conf.Config)
	if i.cfg.Postgres.Password.Configured() {
		if conf.Password, err = i.cfg.Postgres.Password.Read(); err != nil {
			return nil, fmt.Errorf("init: read the Postgres password: %w", err)
		}
	}
	conn, err := pgx.ConnectConfig(ctx, conf)
	if err != nil {
		return nil, fmt.Errorf("init: connect to Postgres: %w", err)
	}
	return conn, nil
}
