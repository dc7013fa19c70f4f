// Package crash names the points at which a relay can die, and stands between a
// relay and its two ends to tell when one is reached.
//
// Everything a relay does to the world it does through the calls of
// relay.Connector and sink.Sink, so dying anywhere is the same as dying just
// before or just after one of them. The exhaustive model (test/model) tries
// every point in every order against simulated ends; the chaos runs (test/chaos)
// kill a real process at the same points against real servers.
package crash
