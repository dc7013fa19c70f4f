package replication

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
)

// MinServerVersion is Postgres 14, the oldest that walpost supports.
const MinServerVersion = 140000

// failoverSlotsVersion is Postgres 17, the first that copies logical slots to
// standbys.
const failoverSlotsVersion = 170000

// Config says what to connect to. Zero durations mean the defaults named.
type Config struct {
	// URL is a libpq connection URL or keyword/value string. Of several hosts
	// the primary is sought, see SeekPrimary.
	URL string
	// Password overrides the URL's. It is asked for at each connect, so that a
	// rotated secret is found. Nil: the URL's.
	Password func() (string, error)
	// Slot is the replication slot's name: [a-z0-9_], at most 63 characters.
	Slot string
	// Publication is the publication's name, unquoted.
	Publication string
	// ApplicationName is how the connection shows in pg_stat_activity; another
	// instance recognises a relay of the same pipeline by it.
	ApplicationName string
	// ConnectTimeout bounds Dial; 5 s, and 2 s more for each further host of
	// URL.
	ConnectTimeout time.Duration
	// SenderTimeout becomes the session's wal_sender_timeout: for so long a
	// server holds the slot for a client that has gone without a word; 10 s.
	SenderTimeout time.Duration
	// StatusInterval is how often a status update is sent, and asks for an
	// answer, when nothing else happens; a third of SenderTimeout. A server
	// that is silent for three of them is given up.
	StatusInterval time.Duration
	// BatchRows bounds the rows of a batch; 1024.
	BatchRows int
}

func (c Config) withDefaults() Config {
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = 5 * time.Second
	}
	if c.SenderTimeout == 0 {
		c.SenderTimeout = 10 * time.Second
	}
	if c.StatusInterval == 0 {
		c.StatusInterval = c.SenderTimeout / 3
	}
	if c.BatchRows == 0 {
		c.BatchRows = 1024
	}
	return c
}

// Conn is a replication connection that does not stream yet. It is not safe
// for concurrent use.
type Conn struct {
	cfg     Config
	pg      *pgconn.PgConn
	frames  *frames
	start   uint64 // the slot's confirmed flush, if there is a slot
	version int    // server_version_num
}

// Dial connects for replication and gathers the server's facts. The caller
// closes the Conn, or hands it over to a Stream with Start.
func Dial(ctx context.Context, cfg Config) (*Conn, Facts, error) {
	c := &Conn{cfg: cfg.withDefaults()}
	if err := checkSlotName(cfg.Slot); err != nil {
		return nil, Facts{}, err
	}
	conf, limit, err := c.configure()
	if err != nil {
		return nil, Facts{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if c.pg, err = pgconn.ConnectConfig(ctx, conf); err != nil {
		return nil, Facts{}, connectError(err)
	}
	facts, err := c.prepare(ctx)
	if err != nil {
		_ = c.Close(ctx)
		return nil, Facts{}, err
	}
	c.version = facts.ServerVersion
	if facts.Slot != nil {
		c.start = facts.Slot.ConfirmedFlush
	}
	return c, facts, nil
}

// Look gathers the server's facts over a connection of its own, which is closed
// again.
func Look(ctx context.Context, cfg Config) (Facts, error) {
	c, facts, err := Dial(ctx, cfg)
	if err != nil {
		return facts, err
	}
	_ = c.Close(ctx)
	return facts, nil
}

func (c *Conn) prepare(ctx context.Context) (Facts, error) {
	if _, err := query(ctx, c.pg, strings.Join(c.settings(), "; ")); err != nil {
		return Facts{}, classify("set up the session", err)
	}
	return gather(ctx, c.pg, c.cfg.Slot, c.cfg.Publication)
}

// settings are the session's own, which any role may choose. By the first a
// slot is free for a successor sooner, whatever the server's timeout; the
// others fix the text that values are sent as, which a role's or database's
// defaults would change.
func (c *Conn) settings() []string {
	return []string{
		fmt.Sprintf("SET wal_sender_timeout = %d", c.cfg.SenderTimeout.Milliseconds()),
		"SET client_encoding = 'UTF8'",
		"SET bytea_output = 'hex'",
		"SET datestyle = 'ISO'",
		"SET intervalstyle = 'postgres'",
		"SET extra_float_digits = 3",
	}
}

// Close ends the connection.
func (c *Conn) Close(ctx context.Context) error { return c.pg.Close(ctx) }

// CreatedSlot is a slot that was just made.
type CreatedSlot struct {
	ConsistentPoint uint64 // transactions that commit past it will be streamed
	// Snapshot shows exactly the rows committed before: SET TRANSACTION
	// SNAPSHOT on another connection, before the next call on this one.
	Snapshot string
}

// CreateSlot makes the configured slot: one that is copied to standbys, for
// them to be promoted with it, where the server can do that (17 and later). It
// waits for transactions that are writing at the moment; ctx bounds the wait.
func (c *Conn) CreateSlot(ctx context.Context) (CreatedSlot, error) {
	op := "create slot " + c.cfg.Slot
	res, err := pglogrepl.ParseCreateReplicationSlot(c.pg.Exec(ctx, c.createSlotCommand()))
	switch {
	case ctx.Err() != nil:
		return CreatedSlot{}, &Error{Op: op, Cause: ctx.Err(), condition: "postgres_unreachable",
			remedy: "a transaction that was open when it started has not ended; end it (see pg_stat_activity.xact_start) and try again"}
	case err != nil:
		return CreatedSlot{}, creationError(op, err)
	}
	point, err := ParseLSN(res.ConsistentPoint)
	c.start = point
	return CreatedSlot{ConsistentPoint: point, Snapshot: res.SnapshotName}, classify(op, err)
}

// createSlotCommand: the form with options in parentheses is known from 15 on,
// and pglogrepl writes the older one.
func (c *Conn) createSlotCommand() string {
	command := "CREATE_REPLICATION_SLOT " + c.cfg.Slot + " LOGICAL pgoutput "
	if c.version >= failoverSlotsVersion {
		return command + "(SNAPSHOT 'export', FAILOVER true)"
	}
	return command + "EXPORT_SNAPSHOT"
}

// creationError: what a server answers to a slot that exists already, or that
// its wal_level does not allow, is no state of a slot that was there before.
func creationError(op string, err error) error {
	var pg *pgconn.PgError
	switch {
	case errors.As(err, &pg) && pg.Code == "53400":
		return &Error{Op: op, Cause: err, final: true, remedy: "drop a slot that nobody needs, or raise max_replication_slots and restart Postgres"}
	case errors.As(err, &pg) && (pg.Code == "42710" || pg.Code == "55000"):
		return &Error{Op: op, Cause: err, final: true}
	}
	return classify(op, err)
}

// DropSlot removes the configured slot, and with it what was not yet read.
func (c *Conn) DropSlot(ctx context.Context) error {
	return slotError("drop slot "+c.cfg.Slot,
		pglogrepl.DropReplicationSlot(ctx, c.pg, c.cfg.Slot, pglogrepl.DropReplicationSlotOptions{}))
}

// Start begins streaming from the slot's confirmed position, and thereby owns
// the slot. Success or not, the Conn is used up: a failed start leaves the
// protocol out of step, so the connection is closed.
//
// It never asks for a position of its own: one ahead of the slot's would make
// Postgres drop silently what lies between.
func (c *Conn) Start(ctx context.Context) (*Stream, error) {
	err := pglogrepl.StartReplication(ctx, c.pg, c.cfg.Slot, 0, pglogrepl.StartReplicationOptions{
		Mode: pglogrepl.LogicalReplication,
		PluginArgs: []string{
			"proto_version '1'",
			"publication_names " + quoteOption(quoteIdentifier(c.cfg.Publication)),
		},
	})
	if err != nil {
		_ = c.Close(ctx)
		return nil, slotError("start streaming from slot "+c.cfg.Slot, err)
	}
	return newStream(c), nil
}

// slotError is for commands that name a slot: that is what they don't find.
func slotError(op string, err error) error {
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == "42704" {
		return &Error{Op: op, Cause: err, condition: "slot_missing", final: true}
	}
	return classify(op, err)
}

// checkSlotName keeps out what the replication protocol, which does not quote
// slot names, would read as something else.
func checkSlotName(name string) error {
	if regexp.MustCompile(`^[a-z0-9_]{1,63}$`).MatchString(name) {
		return nil
	}
	return &Error{Op: "check slot name", Cause: fmt.Errorf("%q is not 1 to 63 of [a-z0-9_]", name), final: true,
		condition: "slot_missing", remedy: "correct postgres.slot"}
}

// quoteOption quotes for the replication grammar, in which a backslash is
// never special.
func quoteOption(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

func quoteIdentifier(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }

// ParseLSN reads an LSN as Postgres prints it.
func ParseLSN(s string) (uint64, error) {
	lsn, err := pglogrepl.ParseLSN(s)
	return uint64(lsn), err
}

// FormatLSN prints an LSN as Postgres does.
func FormatLSN(lsn uint64) string { return pglogrepl.LSN(lsn).String() }
