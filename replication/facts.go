package replication

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
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
	Database      string
	WALPosition   uint64 // flushed so far
	InRecovery    bool
	WALLevel      string
	Slot          *Slot        // nil: there is none of that name
	Publication   *Publication // nil: there is none of that name
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
}

// Publication is what a publication covers.
type Publication struct {
	Name      string
	Insert    bool
	ViaRoot   bool
	AllTables bool
	// Rows identifies the catalog's rows about the publication and its tables
	// (oid and xmin of each): it changes with every change, even one that was
	// taken back.
	Rows   string
	Tables []PublishedTable
}

// PublishedTable is one table of a publication. Columns and RowFilter are
// known from Postgres 15 on, which is the first to have them.
type PublishedTable struct {
	Schema, Table string
	OID           uint32
	Columns       string // comma separated
	RowFilter     string // empty: every row
}

// Covers reports whether inserts into the table are published, unfiltered.
func (p *Publication) Covers(schema, table string) bool {
	return p.Insert && slices.ContainsFunc(p.Tables, func(t PublishedTable) bool {
		return t.Schema == schema && t.Table == table && t.RowFilter == ""
	})
}

// Fingerprint changes whenever what the publication lets through has changed or
// may have been another for a while. It does not cover column lists, which grow with every column that
// is added to a table published whole.
func (p *Publication) Fingerprint() string {
	h := sha256.New()
	_, _ = fmt.Fprintf(h, "%q %t %t %s\n", p.Name, p.Insert, p.ViaRoot, p.Rows)
	for _, t := range p.Tables {
		_, _ = fmt.Fprintf(h, "%q.%q %d %q\n", t.Schema, t.Table, t.OID, t.RowFilter)
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// gather asks the server for its facts over the replication connection itself,
// so that a role with LOGIN REPLICATION and nothing more suffices and no
// second connection can reach a different server.
func gather(ctx context.Context, pg *pgconn.PgConn, slot, publication string) (Facts, error) {
	f, err := identify(ctx, pg)
	if err != nil {
		return f, err
	}
	if f.Slot, err = slotFacts(ctx, pg, slot); err != nil {
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
	f := Facts{SystemID: sys.SystemID, Timeline: sys.Timeline, WALPosition: uint64(sys.XLogPos), Database: sys.DBName}
	row, err := queryRow(ctx, pg, `SELECT pg_is_in_recovery()::text, current_setting('server_version_num'), current_setting('wal_level')`)
	if err != nil {
		return f, classify("identify server", err)
	}
	f.InRecovery, f.WALLevel = row[0] == "true", row[2]
	if f.ServerVersion, err = strconv.Atoi(row[1]); err != nil {
		return f, classify("identify server", fmt.Errorf("server_version_num: %w", err))
	}
	return f, nil
}

func slotFacts(ctx context.Context, pg *pgconn.PgConn, name string) (*Slot, error) {
	row, err := queryRow(ctx, pg, `SELECT coalesce(s.plugin, ''), coalesce(s.database, ''), s.active::text, coalesce(s.active_pid, 0)::text,
		coalesce(a.application_name, ''), coalesce(a.backend_start::text, ''),
		coalesce(s.restart_lsn, '0/0')::text, coalesce(s.confirmed_flush_lsn, '0/0')::text, coalesce(s.wal_status, '')
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

func publicationFacts(ctx context.Context, pg *pgconn.PgConn, name string, version int) (*Publication, error) {
	row, err := queryRow(ctx, pg, `SELECT pubinsert::text, pubviaroot::text, puballtables::text,
		p.oid || ':' || p.xmin || coalesce((SELECT string_agg(' ' || r.oid || ':' || r.xmin, '' ORDER BY r.oid) FROM pg_publication_rel r WHERE r.prpubid = p.oid), '')
		FROM pg_publication p WHERE pubname = `+quoteLiteral(name))
	if errors.Is(err, errNoRow) {
		return nil, nil
	}
	if err != nil {
		return nil, classify("look up publication "+name, err)
	}
	p := &Publication{Name: name, Insert: row[0] == "true", ViaRoot: row[1] == "true", AllTables: row[2] == "true", Rows: row[3]}
	shape := "'', ''"
	if version >= 150000 {
		shape = "array_to_string(t.attnames, ','), coalesce(t.rowfilter, '')"
	}
	rows, err := query(ctx, pg, `SELECT t.schemaname, t.tablename, c.oid::text, `+shape+`
		FROM pg_publication_tables t JOIN pg_namespace n ON n.nspname = t.schemaname
		JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename
		WHERE t.pubname = `+quoteLiteral(name)+` ORDER BY t.schemaname, t.tablename`)
	if err != nil {
		return nil, classify("look up publication "+name, err)
	}
	for _, r := range rows {
		oid, err := strconv.ParseUint(r[2], 10, 32)
		if err != nil {
			return nil, classify("look up publication "+name, err)
		}
		p.Tables = append(p.Tables, PublishedTable{Schema: r[0], Table: r[1], OID: uint32(oid), Columns: r[3], RowFilter: r[4]})
	}
	return p, nil
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
