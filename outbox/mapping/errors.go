package mapping

import (
	"fmt"
	"strings"

	"github.com/walpost/walpost/outbox"
)

// Error says why a table, or one of its rows, can't be mapped. It holds no
// value of the row but the event's id.
type Error struct {
	Table  string          // schema.table
	Column string          // "": no one column is at fault
	ID     string          // event id; "": the table is at fault, or the row has no id
	Pos    outbox.Position // of the event; zero where the table is at fault

	reason    string
	condition string
	remedy    string
}

func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "map table %s", e.Table)
	if e.Column != "" {
		fmt.Fprintf(&b, ", column %s", e.Column)
	}
	if e.ID != "" {
		fmt.Fprintf(&b, ", event %.100q", e.ID)
	}
	if e.Pos != (outbox.Position{}) {
		fmt.Fprintf(&b, " at %s", e.Pos)
	}
	fmt.Fprintf(&b, ": %s", e.reason)
	return b.String()
}

// Condition names the state this error puts a relay in: poison_event if the
// row can't be published, decode_failed if rows of the table can't be read as
// the configuration says, publication_changed if the table isn't configured.
func (e *Error) Condition() string { return e.condition }

// Remedy is what an operator can do.
func (e *Error) Remedy() string { return e.remedy }

// Retryable is false: the same row would fail again.
func (*Error) Retryable() bool { return false }

func notConfigured(table string) error {
	return &Error{
		Table:     table,
		reason:    "it is published but not configured as an outbox",
		condition: "publication_changed",
		remedy:    "remove the table from the publication, or configure it as an outbox; nothing past its first row has been confirmed",
	}
}

func undecodable(table, column, reason, remedy string) *Error {
	return &Error{Table: table, Column: column, reason: reason, condition: "decode_failed", remedy: remedy}
}

func poison(column, reason string) *Error {
	return &Error{
		Column:    column,
		reason:    reason,
		condition: "poison_event",
		remedy:    "correct what writes such rows, or the configuration that can't publish them; nothing past this event has been confirmed",
	}
}
