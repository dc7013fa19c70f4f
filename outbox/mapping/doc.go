// Package mapping turns rows of an outbox table into messages: which column is
// the event's id, key and payload, what the topic is called, which headers it
// carries and which bytes decide its partition.
//
// It is told about tables by name and columns, and about rows as text values
// in column order, so that rows from the write-ahead log and rows from a query
// are mapped by the same code. It knows neither where rows come from nor where
// messages go.
package mapping
