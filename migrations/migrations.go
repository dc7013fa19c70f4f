// Package migrations holds the SQL that prepares a database for walpost, as
// plain files that begin with their reasons: a DBA reads them before saying
// yes. `walpost init` executes the same text that `walpost init --print-sql`
// prints.
//
// Every step is idempotent and leaves alone what exists. None makes the slot:
// that belongs to the relay's own role, after all of them.
package migrations

import (
	"embed"
	"errors"
	"fmt"
	"strings"
	"text/template"
)

//go:embed *.sql
var files embed.FS // immutable; go:embed needs a variable

// Names of the steps, in the order they must be run.
const (
	StepRole        = "role"
	StepTable       = "table"
	StepPublication = "publication"
)

// DefaultRole is what the relay's role is called where nobody named it.
const DefaultRole = "walpost"

// Params are the names that the SQL is written for, as Postgres stores them:
// without quotes, in any characters that Postgres allows.
type Params struct {
	Database    string
	Role        string // "": DefaultRole
	Schema      string
	Table       string
	Publication string
	Columns     Columns
}

// Columns are the names of the outbox table's columns.
type Columns struct {
	ID            string
	AggregateType string
	AggregateID   string
	Type          string
	Payload       string
}

// Step is one migration, ready to be executed or printed.
type Step struct {
	Name   string
	Reason string // the comment the SQL begins with, without its dashes
	SQL    string // one or more statements; comments included, a line end at the end
}

// Render writes the steps for the given names, in the order they must be run.
func Render(p Params) ([]Step, error) {
	if p.Role == "" {
		p.Role = DefaultRole
	}
	if err := p.check(); err != nil {
		return nil, err
	}
	var steps []Step
	for _, s := range []struct{ name, file string }{
		{StepRole, "01_role.sql"},
		{StepTable, "02_table.sql"},
		{StepPublication, "03_publication.sql"},
	} {
		sql, err := render(s.file, p)
		if err != nil {
			return nil, fmt.Errorf("render migration %s: %w", s.name, err)
		}
		steps = append(steps, Step{Name: s.name, Reason: reason(sql), SQL: sql})
	}
	return steps, nil
}

func render(file string, p Params) (string, error) {
	raw, err := files.ReadFile(file)
	if err != nil {
		return "", err
	}
	t, err := template.New(file).Funcs(template.FuncMap{
		"name":    quoteName,
		"literal": quoteLiteral,
		"tag":     p.dollarTag,
	}).Parse(string(raw))
	if err != nil {
		return "", err
	}
	var b strings.Builder
	if err := t.Execute(&b, p); err != nil {
		return "", err
	}
	return b.String(), nil
}

// reason is the comment at the beginning, as running text.
func reason(sql string) string {
	var lines []string
	for line := range strings.Lines(sql) {
		text, isComment := strings.CutPrefix(line, "--")
		if !isComment {
			break
		}
		lines = append(lines, strings.TrimSpace(text))
	}
	return strings.Join(lines, "\n")
}

// quoteName quotes a name of one or more parts: in quotes every character but
// the quote itself stands for itself.
func quoteName(parts ...string) string {
	quoted := make([]string, len(parts))
	for i, part := range parts {
		quoted[i] = `"` + strings.ReplaceAll(part, `"`, `""`) + `"`
	}
	return strings.Join(quoted, ".")
}

// quoteLiteral quotes a string so that it means the same whatever
// standard_conforming_strings is, as Postgres's quote_literal does.
func quoteLiteral(s string) string {
	quoted := "'" + strings.ReplaceAll(s, "'", "''") + "'"
	if strings.Contains(s, `\`) {
		quoted = "E" + strings.ReplaceAll(quoted, `\`, `\\`)
	}
	return quoted
}

// dollarTag is a dollar quote that none of the names can end.
func (p Params) dollarTag() string {
	tag := "walpost"
	for p.anyContains(tag) {
		tag += "_"
	}
	return "$" + tag + "$"
}

func (p Params) anyContains(s string) bool {
	for _, n := range p.names() {
		if strings.Contains(n.text, "$"+s) {
			return true
		}
	}
	return false
}

type named struct{ what, text string }

func (p Params) names() []named {
	return append([]named{
		{"database", p.Database},
		{"role", p.Role},
		{"schema", p.Schema},
		{"table", p.Table},
		{"publication", p.Publication},
	}, p.columns()...)
}

func (p Params) columns() []named {
	return []named{
		{"column of the event id", p.Columns.ID},
		{"column of the aggregate type", p.Columns.AggregateType},
		{"column of the aggregate id", p.Columns.AggregateID},
		{"column of the event type", p.Columns.Type},
		{"column of the payload", p.Columns.Payload},
	}
}

// maxName is Postgres's NAMEDATALEN - 1, in bytes. It truncates longer names
// with no more than a notice, and then makes something else than was asked.
const maxName = 63

var (
	errName   = errors.New("must be 1 to 63 bytes without a zero byte")
	errColumn = errors.New("two columns of the outbox table have this name; give each its own in outbox.columns")
)

func (p Params) check() error {
	for _, n := range p.names() {
		if n.text == "" || len(n.text) > maxName || strings.ContainsRune(n.text, 0) {
			return fmt.Errorf("render migrations: %s %q: %w", n.what, n.text, errName)
		}
	}
	taken := map[string]bool{"headers": true, "created_at": true}
	for _, n := range p.columns() {
		if taken[n.text] {
			return fmt.Errorf("render migrations: %s %q: %w", n.what, n.text, errColumn)
		}
		taken[n.text] = true
	}
	return nil
}
