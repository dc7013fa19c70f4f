package mapping

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/walpost/walpost/outbox"
)

// Config says what the tables of a pipeline look like.
type Config struct {
	// Source is the value of the header walpost-source: [outbox.Source] as
	// text.
	Source string
	Tables []Table
}

// Table is one outbox table.
type Table struct {
	Schema, Name string
	Columns      Columns

	// Topic is where the table's events go: the name of a topic, in which
	// {aggregate_type} may stand once for the event's aggregate type.
	Topic string
}

// Columns are the names of a table's columns, exactly as Postgres has them
// (they are not folded to lower case). A column that is named must exist.
type Columns struct {
	ID            string // unique per event; any type, published as Postgres prints it
	AggregateType string // "": unmapped, for a fixed topic only
	AggregateID   string // the key
	Type          string // "": unmapped
	Payload       string // jsonb, json, text, varchar or bytea
}

// Column is a column of a table as the server describes it.
type Column struct {
	Name    string
	TypeOID uint32
}

// Mapper knows the configured tables. It and the plans it makes share memory
// without locks: they belong to one goroutine.
type Mapper struct {
	tables map[tableName]*table
	heads  heads
}

type tableName struct{ schema, name string }

func (n tableName) String() string { return n.schema + "." + n.name }

type table struct {
	name    tableName
	columns Columns
	topics  *topics
}

// heads are the bytes that every message's headers share.
type heads struct {
	id, position, source []byte // keys
	sourceValue          []byte
}

// New checks the configuration. Its errors name the table and the setting.
func New(config Config) (*Mapper, error) {
	if config.Source == "" {
		return nil, errors.New("mapping: the source is empty")
	}
	if len(config.Tables) == 0 {
		return nil, errors.New("mapping: no outbox table is configured")
	}
	m := &Mapper{
		tables: make(map[tableName]*table, len(config.Tables)),
		heads: heads{
			id:          []byte(outbox.HeaderID),
			source:      []byte(outbox.HeaderSource),
			position:    []byte(outbox.HeaderPosition),
			sourceValue: []byte(config.Source),
		},
	}
	for _, t := range config.Tables {
		if err := m.add(t); err != nil {
			return nil, fmt.Errorf("outbox table %q.%q: %w", t.Schema, t.Name, err)
		}
	}
	return m, nil
}

func (m *Mapper) add(t Table) error {
	name := tableName{t.Schema, t.Name}
	if t.Schema == "" || t.Name == "" {
		return errors.New("schema and name must both be given")
	}
	if m.tables[name] != nil {
		return errors.New("is configured twice")
	}
	topics, err := parseTopic(t.Topic)
	if err != nil {
		return err
	}
	if err := t.Columns.check(topics.fixed); err != nil {
		return err
	}
	m.tables[name] = &table{name: name, columns: t.Columns, topics: topics}
	return nil
}

func (c Columns) check(fixedTopic bool) error {
	for _, column := range []struct {
		setting, name string
		optional      bool
	}{
		{"id", c.ID, false},
		{"aggregate_type", c.AggregateType, fixedTopic},
		{"aggregate_id", c.AggregateID, false},
		{"type", c.Type, true},
		{"payload", c.Payload, false},
	} {
		if column.name == "" && !column.optional {
			return fmt.Errorf("columns.%s: no column is named", column.setting)
		}
	}
	return nil
}

// Plan prepares the mapping of rows that have these columns, in this order. It
// is called once for each description of a table that the server sends.
//
// It fails if the table is not configured (publication_changed), if a mapped
// column is missing or the payload has a type that can't be published
// (decode_failed).
func (m *Mapper) Plan(schema, name string, columns []Column) (*Plan, error) {
	t := m.tables[tableName{schema, name}]
	if t == nil {
		return nil, notConfigured(tableName{schema, name}.String())
	}
	p := &Plan{table: t, heads: m.heads, width: len(columns), aggregateType: -1}
	for _, mapped := range []struct {
		name  string
		index *int
	}{
		{t.columns.ID, &p.id},
		{t.columns.AggregateType, &p.aggregateType},
		{t.columns.AggregateID, &p.aggregateID},
		{t.columns.Type, new(int)}, // must exist; no default header or field is made of it
		{t.columns.Payload, &p.payload},
	} {
		if mapped.name == "" {
			continue
		}
		if *mapped.index = indexOf(columns, mapped.name); *mapped.index < 0 {
			return nil, t.missing(mapped.name, columns)
		}
	}
	encoding, err := t.payloadEncoding(columns[p.payload].TypeOID)
	if err != nil {
		return nil, err
	}
	p.encoding = encoding
	return p, nil
}

func indexOf(columns []Column, name string) int {
	return slices.IndexFunc(columns, func(c Column) bool { return c.Name == name })
}

func (t *table) missing(column string, columns []Column) error {
	found := make([]string, len(columns))
	for i, c := range columns {
		found[i] = fmt.Sprintf("%s (type OID %d)", c.Name, c.TypeOID)
	}
	return undecodable(t.name.String(), column,
		"the rows have no such column; they have "+strings.Join(found, ", "),
		"map the column that holds it, or restore the column")
}

// encoding is how a payload's text form becomes the value.
type encoding uint8

const (
	verbatim encoding = iota
	hexadecimal
)

// OIDs of the types a payload may have, from Postgres's pg_type.dat.
const (
	oidBytea   = 17
	oidText    = 25
	oidJSON    = 114
	oidVarchar = 1043
	oidJSONB   = 3802
)

func (t *table) payloadEncoding(oid uint32) (encoding, error) {
	switch oid {
	case oidJSONB, oidJSON, oidText, oidVarchar:
		return verbatim, nil
	case oidBytea:
		return hexadecimal, nil
	}
	return verbatim, undecodable(t.name.String(), t.columns.Payload,
		fmt.Sprintf("a payload of type OID %d can't be published; accepted are jsonb (%d), json (%d), text (%d), varchar (%d) and bytea (%d)",
			oid, oidJSONB, oidJSON, oidText, oidVarchar, oidBytea),
		"map a column of an accepted type (a domain does not count as its base type)")
}
