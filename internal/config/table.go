package config

import (
	"errors"
	"strings"
)

// maxIdentifier is Postgres's NAMEDATALEN - 1, in bytes: it truncates longer
// names without an error.
const maxIdentifier = 63

// Table is a schema-qualified table, names as Postgres stores them.
type Table struct {
	Schema string
	Name   string
}

var (
	errTableForm   = errors.New("not a schema and a table joined by one dot")
	errTableQuotes = errors.New("a double quote is missing or stands inside a name unescaped")
	errTableLength = errors.New("a name is empty or longer than 63 bytes")
)

// ParseTable reads schema.table as SQL does: a name without quotes is folded
// to lower case, a quoted one is taken as it is and doubles its own quotes.
func ParseTable(text string) (Table, error) {
	schema, rest, err := cutIdentifier(text)
	if err != nil {
		return Table{}, err
	}
	rest, dotted := strings.CutPrefix(rest, ".")
	if !dotted {
		return Table{}, errTableForm
	}
	name, rest, err := cutIdentifier(rest)
	switch {
	case err != nil:
		return Table{}, err
	case rest != "":
		return Table{}, errTableForm
	}
	return Table{Schema: schema, Name: name}, nil
}

// String is the form that ParseTable reads.
func (t Table) String() string {
	return quoteIfNeeded(t.Schema) + "." + quoteIfNeeded(t.Name)
}

func quoteIfNeeded(name string) string {
	if plain, rest, err := cutBare(name); err == nil && rest == "" && plain == name {
		return name
	}
	return `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
}

func cutIdentifier(s string) (name, rest string, err error) {
	if strings.HasPrefix(s, `"`) {
		name, rest, err = cutQuoted(s[1:])
	} else {
		name, rest, err = cutBare(s)
	}
	if err == nil && !validIdentifier(name) {
		err = errTableLength
	}
	return name, rest, err
}

func cutQuoted(s string) (name, rest string, err error) {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(s, `"`)
		if !found {
			return "", "", errTableQuotes
		}
		b.WriteString(before)
		if !strings.HasPrefix(after, `"`) {
			return b.String(), after, nil
		}
		b.WriteByte('"')
		s = after[1:]
	}
}

func cutBare(s string) (name, rest string, err error) {
	end := strings.IndexFunc(s, func(r rune) bool {
		return r != '_' && r != '$' && !isDigit(r) && !isLetter(r)
	})
	if end < 0 {
		end = len(s)
	}
	name, rest = s[:end], s[end:]
	switch {
	case name == "" || isDigit(rune(name[0])) || name[0] == '$':
		return "", "", errTableForm
	case strings.HasPrefix(rest, `"`):
		return "", "", errTableQuotes
	}
	return foldASCII(name), rest, nil
}

// foldASCII lowers A to Z only, as Postgres does in multi-byte encodings.
func foldASCII(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

func isDigit(r rune) bool { return r >= '0' && r <= '9' }

func isLetter(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r > 0x7f
}

func validIdentifier(name string) bool {
	return name != "" && len(name) <= maxIdentifier && !strings.ContainsRune(name, 0)
}
