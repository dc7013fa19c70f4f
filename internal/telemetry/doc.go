// Package telemetry shows what a relay does: metrics, health pages and logs.
//
// It is told by relay through an Observer, once per batch, and asks for a
// Status when somebody scrapes; nothing here runs by itself but the HTTP
// server, and nothing here can hold up an event.
package telemetry
