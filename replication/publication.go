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

	"github.com/jackc/pgx/v5/pgconn"
)

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
	Partitions    []Partition
}

// Partition is one below a published table, at whatever depth; itself
// partitioned or not.
type Partition struct {
	OID  uint32
	Name string // with its schema, unless that is in the search path; quoted where needed
	// Decoded: what is inserted into it is in the WAL. It is not for one that is
	// UNLOGGED or a foreign table, and no error says so.
	Decoded bool
	// Attached is another one after the partition was detached and attached
	// again: the xmin of its row in pg_inherits.
	Attached string
}

// Covers reports whether inserts into the table are published, unfiltered.
func (p *Publication) Covers(schema, table string) bool {
	return p.Insert && slices.ContainsFunc(p.Tables, func(t PublishedTable) bool {
		return t.Schema == schema && t.Table == table && t.RowFilter == ""
	})
}

// Fingerprint changes whenever what the publication lets through has changed or
// may have been another for a while. It does not cover column lists, which grow with every column that
// is added to a table published whole, nor partitions, which come and go.
func (p *Publication) Fingerprint() string {
	h := sha256.New()
	_, _ = fmt.Fprintf(h, "%q %t %t %s\n", p.Name, p.Insert, p.ViaRoot, p.Rows)
	for _, t := range p.Tables {
		_, _ = fmt.Fprintf(h, "%q.%q %d %q\n", t.Schema, t.Table, t.OID, t.RowFilter)
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

func publicationFacts(ctx context.Context, pg *pgconn.PgConn, name string, version int) (*Publication, error) {
	op := "look up publication " + name
	schemas := "" // can be published from 15 on, as rows of their own
	if version >= 150000 {
		schemas = rowsOf("pg_publication_namespace", "pnpubid")
	}
	row, err := queryRow(ctx, pg, `SELECT pubinsert::text, pubviaroot::text, puballtables::text,
		p.oid || ':' || p.xmin`+rowsOf("pg_publication_rel", "prpubid")+schemas+`
		FROM pg_publication p WHERE pubname = `+quoteLiteral(name))
	if errors.Is(err, errNoRow) {
		return nil, nil
	}
	if err != nil {
		return nil, classify(op, err)
	}
	p := &Publication{Name: name, Insert: row[0] == "true", ViaRoot: row[1] == "true", AllTables: row[2] == "true", Rows: row[3]}
	if p.Tables, err = publishedTables(ctx, pg, name, version); err != nil {
		return nil, classify(op, err)
	}
	return p, classify(op, addPartitions(ctx, pg, p.Tables))
}

// rowsOf are oid and xmin of a catalog's rows about publication p.
func rowsOf(catalog, column string) string {
	return ` || coalesce((SELECT string_agg(' ' || r.oid || ':' || r.xmin, '' ORDER BY r.oid) FROM ` + catalog + ` r WHERE r.` + column + ` = p.oid), '')`
}

func publishedTables(ctx context.Context, pg *pgconn.PgConn, name string, version int) ([]PublishedTable, error) {
	shape := "'', ''"
	if version >= 150000 {
		shape = "array_to_string(t.attnames, ','), coalesce(t.rowfilter, '')"
	}
	rows, err := query(ctx, pg, `SELECT t.schemaname, t.tablename, c.oid::text, `+shape+`
		FROM pg_publication_tables t JOIN pg_namespace n ON n.nspname = t.schemaname
		JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename
		WHERE t.pubname = `+quoteLiteral(name)+` ORDER BY t.schemaname, t.tablename`)
	if err != nil {
		return nil, err
	}
	tables := make([]PublishedTable, len(rows))
	for i, r := range rows {
		oid, err := parseOID(r[2])
		if err != nil {
			return nil, err
		}
		tables[i] = PublishedTable{Schema: r[0], Table: r[1], OID: oid, Columns: r[3], RowFilter: r[4]}
	}
	return tables, nil
}

// addPartitions finds the partitions of the tables. A partition that is being
// detached concurrently takes no more rows of its parent.
func addPartitions(ctx context.Context, pg *pgconn.PgConn, tables []PublishedTable) error {
	if len(tables) == 0 {
		return nil
	}
	at := make(map[string]*PublishedTable, len(tables))
	oids := make([]string, len(tables))
	for i := range tables {
		oids[i] = strconv.FormatUint(uint64(tables[i].OID), 10)
		at[oids[i]] = &tables[i]
	}
	rows, err := query(ctx, pg, `SELECT root.oid::text, k.oid::text, k.oid::regclass::text,
		(k.relkind = 'p' OR k.relkind = 'r' AND k.relpersistence = 'p')::text, i.xmin::text
		FROM unnest('{`+strings.Join(oids, ",")+`}'::oid[]) AS root(oid), pg_partition_tree(root.oid) AS part
		JOIN pg_class k ON k.oid = part.relid JOIN pg_inherits i ON i.inhrelid = k.oid AND NOT i.inhdetachpending
		WHERE k.oid <> root.oid ORDER BY root.oid, k.oid`)
	if err != nil {
		return err
	}
	for _, r := range rows {
		oid, err := parseOID(r[1])
		if err != nil {
			return err
		}
		t := at[r[0]]
		t.Partitions = append(t.Partitions, Partition{OID: oid, Name: r[2], Decoded: r[3] == "true", Attached: r[4]})
	}
	return nil
}

func parseOID(s string) (uint32, error) {
	oid, err := strconv.ParseUint(s, 10, 32)
	return uint32(oid), err
}
