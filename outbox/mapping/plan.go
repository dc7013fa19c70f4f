package mapping

import (
	"encoding/hex"
	"fmt"
	"unicode/utf8"

	"github.com/walpost/walpost/outbox"
)

// Plan maps the rows of one table as it was described to [Mapper.Plan].
type Plan struct {
	table *table
	heads heads
	width int // values in a row

	// Indexes into a row's values; aggregateType may be -1.
	id, aggregateType, aggregateID, payload int

	encoding encoding
}

// Map makes m the message of a row: ID, Key, Value, HashKey, Topic, Partition
// and Headers. The caller has set m.Pos, which becomes a header, and sets the
// rest. values are the row's in column order, in text form, nil for NULL. What
// m refers to lies in values and in a, and is lent for as long as both are.
//
//   - The key is the aggregate id: nil for NULL, and then the event id decides
//     the partition; empty for an empty one, which is hashed like any other.
//   - The value is the payload as Postgres prints it, or a bytea's bytes; nil
//     (a tombstone) for NULL.
//   - The headers are id, walpost-source and walpost-position.
//
// If it fails, m is as it was. A row that can't be published is a
// poison_event; decode_failed says that no row would do.
func (p *Plan) Map(m *outbox.Message, a *Arena, values [][]byte) error {
	if len(values) != p.width {
		return undecodable(p.table.name.String(), "",
			fmt.Sprintf("a row has %d values for %d columns", len(values), p.width),
			"report this as a bug, with the versions of Postgres and walpost")
	}
	id := values[p.id]
	if reason := refuseID(id); reason != "" {
		return p.locate(poison(p.table.columns.ID, reason), m, nil)
	}
	topic, failure := p.topic(values)
	if failure != nil {
		return p.locate(failure, m, id)
	}
	value, failure := p.value(a, values[p.payload])
	if failure != nil {
		return p.locate(failure, m, id)
	}
	m.ID, m.Key, m.Value = id, values[p.aggregateID], value
	m.HashKey = m.Key
	if m.Key == nil {
		m.HashKey = id
	}
	m.Topic, m.Partition = topic, -1
	m.Headers = p.headers(a, m)
	return nil
}

// locate says which event failed.
func (p *Plan) locate(e *Error, m *outbox.Message, id []byte) error {
	e.Table, e.ID, e.Pos = p.table.name.String(), string(id), m.Pos
	return e
}

// refuseID wants an id that identifies, and that logs and the checkpoint can
// hold unaltered.
func refuseID(id []byte) (reason string) {
	switch {
	case id == nil:
		return "the event id is NULL"
	case len(id) == 0:
		return "the event id is empty"
	case !utf8.Valid(id):
		return "the event id is not valid UTF-8"
	}
	return ""
}

func (p *Plan) topic(values [][]byte) (string, *Error) {
	if p.table.topics.fixed {
		return p.table.topics.prefix, nil
	}
	aggregateType := values[p.aggregateType]
	if aggregateType == nil {
		return "", poison(p.table.columns.AggregateType, "the aggregate type is NULL, and the topic is made of it")
	}
	topic, reason := p.table.topics.name(aggregateType)
	if reason != "" {
		return "", poison(p.table.columns.AggregateType, reason)
	}
	return topic, nil
}

func (p *Plan) value(a *Arena, payload []byte) ([]byte, *Error) {
	if payload == nil || p.encoding == verbatim {
		return payload, nil
	}
	if len(payload) < 2 || payload[0] != '\\' || payload[1] != 'x' || len(payload)%2 != 0 {
		return nil, p.notHex()
	}
	value := a.takeBytes(len(payload)/2 - 1)
	if _, err := hex.Decode(value, payload[2:]); err != nil {
		return nil, p.notHex() // err would quote a character of the payload
	}
	return value, nil
}

// notHex is not the row's fault, so no poison policy may put the row aside.
func (p *Plan) notHex() *Error {
	return undecodable(p.table.name.String(), p.table.columns.Payload,
		"the bytea is not in hexadecimal form (\\x…)",
		"set bytea_output = hex for walpost's role and database")
}

func (p *Plan) headers(a *Arena, m *outbox.Message) []outbox.Header {
	position, _ := m.Pos.AppendText(a.takeBytes(outbox.PositionLen)[:0])
	h := a.takeHeaders()
	h[0] = outbox.Header{Key: p.heads.id, Value: m.ID}
	h[1] = outbox.Header{Key: p.heads.source, Value: p.heads.sourceValue}
	h[2] = outbox.Header{Key: p.heads.position, Value: position}
	return h
}
