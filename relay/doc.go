// Package relay joins the layers: it moves events from a replication stream
// through a mapping into a sink, remembers in the sink's marks how far it has
// come, and only then confirms that position to Postgres.
//
// # Who does what
//
// A Pipeline is one life: connect, prove continuity, stream until something
// ends it, wind up. It never tries again. A Supervisor runs one life after
// another, decides between trying again and stopping, and knows the conditions;
// it never touches an event.
//
// # One life
//
// The order of opening matters. The sink is asked for its marks first: while it
// can't be reached, Postgres is left alone. Then Postgres's facts are gathered,
// and a checkpoint of another cluster stops the relay before anybody is fenced.
// Starting the stream takes the slot; opening the session fences every
// predecessor; only what the marks say after that is final, and is what
// continuity is judged by.
//
// The goroutines of a life are joined by an errgroup: those of the delivery,
// watch (an end of the session or the stream that the others, blocked, would not
// see, and a standstill) and monitor (a publication that is altered under way).
// The sink's own goroutine calls settle. They meet in the flight, under its mutex.
//
// # Delivery
//
// The sink's kind decides. A continuous sink shows each event as soon as it holds
// it: feed sends (Next, map, Send) and confirm follows behind (the settled prefix →
// marks → Postgres). An atomic sink shows events and marks together: one
// goroutine sends and commits, as many whole transactions as wait.
//
// Whatever the kind, a life begins by dropping what the checkpoint covers; see
// resumption. What a predecessor published beyond the checkpoint is the sink's to
// recognise.
//
// # Winding up
//
// However a life ends, nothing of it may reach the sink afterwards: the session
// is closed before the slot is given back, so that a successor's events are not
// overtaken. What still can be settled is, the checkpoint is written a last
// time, and its position confirmed. That is why Send and Commit are not
// interrupted when a life is over, but given until its patience ends: a call
// that is interrupted ends the session.
package relay
