package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// The application: a marketplace of open trainings. Providers publish offers,
// participants order seats. Offers are rejected by reviewers, and with an offer
// every order for it that isn't paid; orders are also rejected one by one. Both
// are tried again and again, so a key has many events, and their order matters.

const (
	offers = 240 // each with two orders

	// desks work side by side. An offer and its orders belong to one desk, so
	// the desk knows in which order the events of a key were committed.
	desks = 4

	// transactionsPerSecond is what the desks do together.
	transactionsPerSecond = 100
)

const schema = `
CREATE TABLE offers (
	id text PRIMARY KEY, title text NOT NULL, provider text NOT NULL,
	status text NOT NULL DEFAULT 'published', revision int NOT NULL DEFAULT 0
);
CREATE TABLE orders (
	id text PRIMARY KEY, offer_id text NOT NULL REFERENCES offers, seats int NOT NULL, total numeric(10,2) NOT NULL,
	status text NOT NULL DEFAULT 'open', attempt int NOT NULL DEFAULT 0
);
CREATE INDEX ON orders (offer_id);`

// fill makes every tenth offer one that has a paid order.
const fill = `
INSERT INTO offers (id, title, provider)
	SELECT 'OFF-' || 1000 + n,
		(ARRAY['Postgres for Operators', 'Event-Driven Design', 'Kafka in Production', 'SQL from Scratch', 'Go for Backends'])[1 + n % 5],
		(ARRAY['Nordlys Academy', 'Rivermark', 'Open Lecture', 'Campus Nine'])[1 + n % 4]
	FROM generate_series(1, $1::int) n;
INSERT INTO orders (id, offer_id, seats, total, status)
	SELECT 'ORD-' || 20000 + 2 * n + i, 'OFF-' || 1000 + n, 1 + (n + i) % 3, 490 * (1 + (n + i) % 3),
		CASE WHEN n % 10 = 0 AND i = 1 THEN 'paid' ELSE 'open' END
	FROM generate_series(1, $1::int) n, generate_series(0, 1) i;`

// openTrainings makes the application's tables and their content.
func openTrainings(ctx context.Context, conn *pgx.Conn) error {
	_, err := conn.Exec(ctx, schema+fill, pgx.QueryExecModeSimpleProtocol, offers)
	if err != nil {
		return fmt.Errorf("make the application's tables: %w", err)
	}
	return nil
}

// trainings is the application at work.
type trainings struct {
	url        string // of its database
	ledger     *ledger
	rolledBack func(key string, at time.Time) // told of each rollback
}

// run works until ctx ends, then finishes what it has begun.
func (t *trainings) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for number := range desks {
		group.Go(func() error { return t.work(ctx, number) })
	}
	if err := group.Wait(); err != nil {
		return fmt.Errorf("the application failed: %w", err)
	}
	return nil
}

// work is one desk's day. Transactions begin at random moments, as those of an
// application do, and are never cut short: their outcome would be unknown.
func (t *trainings) work(ctx context.Context, number int) error {
	whole := context.WithoutCancel(ctx)
	conn, err := pgx.Connect(whole, t.url)
	if err != nil {
		return err
	}
	defer conn.Close(whole) //nolint:errcheck // everything was answered
	d := &desk{trainings: t, number: number, conn: conn}
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-pause.C:
		}
		if err := d.reject(whole); err != nil {
			return err
		}
		pause.Reset(time.Duration(rand.ExpFloat64() * float64(desks*time.Second/transactionsPerSecond))) //nolint:gosec // no secret
	}
}

// desk is one session of the application.
type desk struct {
	*trainings
	number int
	conn   *pgx.Conn
}

// reject is one transaction: it changes state and inserts the events of the
// change, and either both are committed or neither.
func (d *desk) reject(ctx context.Context) error {
	n := 1 + d.number + desks*rand.IntN(offers/desks) //nolint:gosec // no secret
	tx, err := d.conn.Begin(ctx)
	if err != nil {
		return err
	}
	r := &rejection{tx: tx, at: time.Now().UTC().Truncate(time.Millisecond)}
	var allowed bool
	if rand.IntN(2) == 0 { //nolint:gosec // no secret
		allowed, err = r.offer(ctx, fmt.Sprintf("OFF-%d", 1000+n))
	} else {
		allowed, err = true, r.orders(ctx, "payment_declined", "id = $1", fmt.Sprintf("ORD-%d", 20000+2*n))
	}
	if err != nil {
		return err // the connection ends with the desk, and with it the transaction
	}
	return d.finish(ctx, r, allowed)
}

// finish commits, or rolls back what a business rule forbids.
func (d *desk) finish(ctx context.Context, r *rejection, allowed bool) error {
	d.ledger.announce(r.events)
	if !allowed {
		if err := r.tx.Rollback(ctx); err != nil {
			return err
		}
		d.ledger.rollBack(r.events)
		d.rolledBack(r.events[0].key, time.Now())
		return nil
	}
	if err := r.tx.Commit(ctx); err != nil {
		return err
	}
	d.ledger.commit(time.Now(), r.events)
	return nil
}

// rejection is one transaction under way.
type rejection struct {
	tx     pgx.Tx
	at     time.Time
	events []event
}

// offer rejects an offer and its open orders. It reports false if a rule of the
// business forbids that: people have paid.
func (r *rejection) offer(ctx context.Context, id string) (allowed bool, err error) {
	payload := offerRejected{Offer: id, Reason: "incomplete_description", At: r.at}
	err = r.tx.QueryRow(ctx, `UPDATE offers SET status = 'rejected', revision = revision + 1 WHERE id = $1
		RETURNING title, provider, revision`, id).Scan(&payload.Title, &payload.Provider, &payload.Revision)
	if err != nil {
		return false, err
	}
	if err := r.publish(ctx, "offer", id, "OfferRejectedEvent", payload); err != nil {
		return false, err
	}
	if err := r.orders(ctx, "offer_rejected", "offer_id = $1", id); err != nil {
		return false, err
	}
	err = r.tx.QueryRow(ctx, `SELECT NOT EXISTS (SELECT FROM orders WHERE offer_id = $1 AND status = 'paid')`, id).Scan(&allowed)
	return allowed, err
}

// orders rejects the orders that the condition picks, but for paid ones.
func (r *rejection) orders(ctx context.Context, reason, condition, id string) error {
	rows, err := r.tx.Query(ctx, `UPDATE orders SET status = 'rejected', attempt = attempt + 1 WHERE status <> 'paid' AND `+condition+`
		RETURNING id, offer_id, attempt, seats, total::text`, id)
	if err != nil {
		return err
	}
	rejected, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (p orderRejected, err error) {
		p = orderRejected{Reason: reason, At: r.at, Total: amount{Currency: "EUR"}}
		return p, row.Scan(&p.Order, &p.Offer, &p.Attempt, &p.Seats, &p.Total.Amount)
	})
	if err != nil {
		return err
	}
	for _, p := range rejected {
		if err := r.publish(ctx, "order", p.Order, "OrderRejectedEvent", p); err != nil {
			return err
		}
	}
	return nil
}

// publish is all that an application does for walpost: one INSERT.
func (r *rejection) publish(ctx context.Context, aggregate, key, kind string, payload any) error {
	e := event{kind: kind, key: key}
	err := r.tx.QueryRow(ctx, `INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload)
		VALUES (gen_random_uuid(), $1, $2, $3, $4) RETURNING id::text`, aggregate, key, kind, payload).Scan(&e.id)
	r.events = append(r.events, e)
	return err
}

type offerRejected struct {
	Offer    string    `json:"offerId"`
	Revision int       `json:"revision"`
	Title    string    `json:"title"`
	Provider string    `json:"provider"`
	Reason   string    `json:"reason"`
	At       time.Time `json:"rejectedAt"`
}

type orderRejected struct {
	Order   string    `json:"orderId"`
	Offer   string    `json:"offerId"`
	Attempt int       `json:"attempt"`
	Seats   int       `json:"seats"`
	Total   amount    `json:"total"`
	Reason  string    `json:"reason"`
	At      time.Time `json:"rejectedAt"`
}

type amount struct {
	Amount   string `json:"amount"`
	Currency string `json:"currency"`
}
