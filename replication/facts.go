package replication

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
)

// Facts are what the server says about itself, the slot and the publication at
// one moment, before anything is read from it. Judging them is the relay's.
type Facts struct {
	ServerVersion int    // server_version_num: 180006 is 18.6
	SystemID      string // of the database cluster; survives everything but initdb and pg_upgrade
	Timeline      int32
	// History tells where the timelines before this one ended, oldest first;
	// empty on the first timeline, and where the server has lost the file.
	History     []Switch
	Database    string
	WALPosition uint64 // flushed so far
	InRecovery  bool
	WALLevel    string
	// BackendPID is the server's process for the connection that asked.
	BackendPID  uint32
	Slot        *Slot        // nil: there is none of that name
	Publication *Publication // nil: there is none of that name
}

// Switch is where a timeline ended that the present one descends from: what lies
// below is common to both, what a server wrote there at or above it is not.
type Switch struct {
	Timeline int32
	LSN      uint64
}

// Slot is a row of pg_replication_slots.
type Slot struct {
	Name           string
	Plugin         string // empty for a physical slot
	Database       string
	Active         bool
	HolderPID      int    // 0: none
	HolderName     string // application_name of the holder; empty: unknown to this role
	HolderSince    string // when the holder connected, as Postgres prints it
	RestartLSN     uint64
	ConfirmedFlush uint64
	WALStatus      string // reserved, extended, unreserved, lost
	// Conflicting: a standby had to remove rows of the catalog that decoding
	// needs (16 and later).
	Conflicting bool
	// Failover: the slot is copied to standbys. Synced: it is such a copy.
	// InvalidationReason is why the slot is of no use any more, empty if it is.
	// All three from 17 on.
	Failover, Synced   bool
	InvalidationReason string
}

// LacksFailover reports whether the slot stays behind at a promotion, though the
// server could copy it to its standbys.
func (f Facts) LacksFailover() bool {
	return f.Slot != nil && !f.Slot.Failover && f.ServerVersion >= failoverSlotsVersion
}

// gather asks the server for its facts over the replication connection itself,
// so that a role with LOGIN REPLICATION and nothing more suffices and no
// second connection can reach a different server.
func gather(ctx context.Context, pg *pgconn.PgConn, slot, publication string) (Facts, error) {
	f, err := identify(ctx, pg)
	if err != nil {
		return f, err
	}
	if f.Slot, err = slotFacts(ctx, pg, slot, f.ServerVersion); err != nil {
		return f, err
	}
	f.Publication, err = publicationFacts(ctx, pg, publication, f.ServerVersion)
	return f, err
}

func identify(ctx context.Context, pg *pgconn.PgConn) (Facts, error) {
	sys, err := pglogrepl.IdentifySystem(ctx, pg)
	if err != nil {
		return Facts{}, classify("identify server", err)
	}
	f := Facts{SystemID: sys.SystemID, Timeline: sys.Timeline, WALPosition: uint64(sys.XLogPos), Database: sys.DBName, BackendPID: pg.PID()}
	row, err := queryRow(ctx, pg, `SELECT pg_is_in_recovery()::text, current_setting('server_version_num'), current_setting('wal_level')`)
	if err != nil {
		return f, classify("identify server", err)
	}
	f.InRecovery, f.WALLevel = row[0] == "true", row[2]
	if f.ServerVersion, err = strconv.Atoi(row[1]); err != nil {
		return f, classify("identify server", fmt.Errorf("server_version_num: %w", err))
	}
	f.History, err = history(ctx, pg, f.Timeline)
	return f, err
}

// history asks for the timelines that led to this one. A server that has lost
// the file is no failure of the connection: nothing can be proven by it.
func history(ctx context.Context, pg *pgconn.PgConn, timeline int32) ([]Switch, error) {
	if timeline <= 1 {
		return nil, nil // the first has no history, and no file
	}
	op := fmt.Sprintf("read the history of timeline %d", timeline)
	file, err := pglogrepl.TimelineHistory(ctx, pg, timeline)
	var refused *pgconn.PgError
	if errors.As(err, &refused) && refused.Code == "58P01" { // undefined file
		return nil, nil
	}
	if err != nil {
		return nil, classify(op, err)
	}
	switches, err := parseHistory(string(file.Content))
	return switches, classify(op, err)
}

// parseHistory reads a timeline history file: a line for each timeline left,
// <timeline> <switch LSN> <reason>, between comments and empty lines.
func parseHistory(content string) (switches []Switch, err error) {
	for line := range strings.Lines(content) {
		fields := strings.Fields(line)
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		if len(fields) < 2 {
			return nil, fmt.Errorf("line %q has no switch point", line)
		}
		timeline, err := strconv.ParseInt(fields[0], 10, 32)
		if err != nil {
			return nil, fmt.Errorf("timeline: %w", err)
		}
		lsn, err := ParseLSN(fields[1])
		if err != nil {
			return nil, fmt.Errorf("switch point: %w", err)
		}
		switches = append(switches, Switch{Timeline: int32(timeline), LSN: lsn})
	}
	return switches, nil
}

func slotFacts(ctx context.Context, pg *pgconn.PgConn, name string, version int) (*Slot, error) {
	row, err := queryRow(ctx, pg, `SELECT coalesce(s.plugin, ''), coalesce(s.database, ''), s.active::text, coalesce(s.active_pid, 0)::text,
		coalesce(a.application_name, ''), coalesce(a.backend_start::text, ''),
		coalesce(s.restart_lsn, '0/0')::text, coalesce(s.confirmed_flush_lsn, '0/0')::text, coalesce(s.wal_status, ''), `+newerSlotColumns(version)+`
		FROM pg_replication_slots s LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid
		WHERE s.slot_name = `+quoteLiteral(name))
	if errors.Is(err, errNoRow) {
		return nil, nil
	}
	if err != nil {
		return nil, classify("look up slot "+name, err)
	}
	s := &Slot{
		Name: name, Plugin: row[0], Database: row[1], Active: row[2] == "true",
		HolderName: row[4], HolderSince: row[5], WALStatus: row[8],
		Conflicting: row[9] == "true", Failover: row[10] == "true", Synced: row[11] == "true", InvalidationReason: row[12],
	}
	s.HolderPID, _ = strconv.Atoi(row[3])
	if s.RestartLSN, err = ParseLSN(row[6]); err != nil {
		return nil, classify("look up slot "+name, err)
	}
	if s.ConfirmedFlush, err = ParseLSN(row[7]); err != nil {
		return nil, classify("look up slot "+name, err)
	}
	return s, nil
}

// newerSlotColumns are conflicting, failover, synced and invalidation_reason, or
// what stands for them on a server that is too old for one.
func newerSlotColumns(version int) string {
	switch {
	case version >= failoverSlotsVersion:
		return "coalesce(s.conflicting, false)::text, s.failover::text, s.synced::text, coalesce(s.invalidation_reason, '')"
	case version >= 160000:
		return "coalesce(s.conflicting, false)::text, 'false', 'false', ''"
	}
	return "'false', 'false', 'false', ''"
}

var errNoRow = errors.New("no row")

func queryRow(ctx context.Context, pg *pgconn.PgConn, sql string) ([]string, error) {
	rows, err := query(ctx, pg, sql)
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 {
		return nil, errNoRow
	}
	return rows[0], nil
}

// query runs one statement by the simple protocol, the only one a walsender
// speaks. NULL comes back as an empty string.
func query(ctx context.Context, pg *pgconn.PgConn, sql string) ([][]string, error) {
	results, err := pg.Exec(ctx, sql).ReadAll()
	if err != nil {
		return nil, err
	}
	var rows [][]string
	for _, result := range results {
		for _, values := range result.Rows {
			row := make([]string, len(values))
			for i, v := range values {
				row[i] = string(v)
			}
			rows = append(rows, row)
		}
	}
	return rows, nil
}

func quoteLiteral(s string) string {
	// A literal with a backslash means the same under either setting of
	// standard_conforming_strings only as an escape string.
	s = strings.ReplaceAll(s, "'", "''")
	if strings.Contains(s, `\`) {
		return " E'" + strings.ReplaceAll(s, `\`, `\\`) + "'"
	}
	return "'" + s + "'"
}
