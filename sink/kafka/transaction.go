package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/IBM/sarama"
)

// floorsInterval is how often a commit of an atomic session takes floors along
// that have only risen. They cost bytes with every commit, and a floor that is
// too low costs a successor only the reading.
const floorsInterval = time.Second

// transactional is the ledger of an atomic session: one producer, whose
// transactions hold events and marks. All but explain is called with the
// session's sending held.
type transactional struct {
	s    *session
	open bool // a transaction is

	introduced bool      // a topic since the floors were last written
	floorsAt   time.Time // when they were

	begun atomic.Int64 // when the latest transaction began, Unix nanoseconds
}

// connectTransactional makes the producer of an atomic session, which fences
// every earlier session, and a client beside it that reads.
func connectTransactional(cfg Config, d *dialer) (*connection, error) {
	store, err := readMarksOnly(cfg, d)
	if err != nil {
		return nil, err
	}
	c := &connection{marks: store}
	conf := cfg.transactionConfig(d, func() bool { return inError(c.producer) })
	if err := c.produce(cfg, conf, "take over transactional id "+cfg.TransactionalID); err != nil {
		d.cut() // so that closing the store does not wait for the network
		store.close()
		return nil, err
	}
	store.fenced = true
	return c, nil
}

func (t *transactional) begin() error {
	if t.open {
		return nil
	}
	if err := t.s.producer.BeginTxn(); err != nil {
		return classify("begin a Kafka transaction", err)
	}
	t.begun.Store(time.Now().UnixNano())
	t.open = true
	return nil
}

// introduce writes nothing: what a transaction writes to a topic is visible only
// together with the floors in its marks.
func (t *transactional) introduce(context.Context) error {
	t.introduced = true
	return nil
}

// taken ends with a whole transaction, so that what was taken may be committed.
func (t *transactional) taken(first, _ int) int { return first }

// commit gives the marks to the producer right behind the events and ends the
// transaction. sarama waits for all acknowledgements before it asks the
// coordinator to commit, and does not ask if any of them was a refusal.
func (t *transactional) commit(ctx context.Context, through uint64, marks map[string][]byte) error {
	s := t.s
	defer s.failAtEndOf(ctx, "commit a Kafka transaction")()
	s.sending.Lock()
	defer s.sending.Unlock()
	if ctx.Err() != nil {
		return s.fail(context.Cause(ctx)) // failAtEndOf may be about to
	}
	if s.over.Load() {
		return s.ended()
	}
	records, err := t.records(through, marks)
	if err != nil {
		return s.fail(err)
	}
	if err := t.end(records); err != nil {
		return t.refused(err)
	}
	if err := s.flush(ctx); err != nil {
		return s.fail(err)
	}
	return nil
}

// records makes the records of the marks and, if they are due, of the floors.
func (t *transactional) records(through uint64, marks map[string][]byte) ([]*sarama.ProducerMessage, error) {
	var floors []byte
	if t.introduced || time.Since(t.floorsAt) >= floorsInterval {
		var err error
		if floors, err = t.s.floors.advance(through); err != nil {
			return nil, err
		}
		t.introduced, t.floorsAt = false, time.Now()
	}
	return t.s.marks.records(withFloors(marks, floors), min(t.s.cfg.MaxMessageBytes, marksMaxMessageBytes))
}

// end writes the records and commits the transaction. With neither records nor a
// transaction there is nothing to do.
func (t *transactional) end(records []*sarama.ProducerMessage) error {
	for _, record := range records {
		if err := t.begin(); err != nil {
			return err
		}
		select {
		case t.s.producer.Input() <- record:
		case <-t.s.done:
			return t.s.ended()
		}
	}
	if !t.open {
		return nil
	}
	t.open = false
	return t.s.producer.CommitTxn()
}

// refused ends the session because a commit has failed. Its reason may be a
// record that was refused. drain has that error by then, and knows which record
// it was; it takes the next duplicates only after it has dealt with the error.
func (t *transactional) refused(err error) error {
	select {
	case t.s.duplicates <- nil:
	case <-t.s.done:
	}
	return t.s.fail(t.explain(classify("commit a Kafka transaction", err)))
}

// discard aborts the open transaction, which would otherwise hide what others
// write behind it until it times out.
func (t *transactional) discard() error {
	if !t.open {
		return nil
	}
	t.open = false
	if err := t.s.producer.AbortTxn(); err != nil {
		return t.explain(classify("abort a Kafka transaction", err))
	}
	return nil
}

// explain tells a transaction that was open for too long from a successor: the
// coordinator fences its producer, too.
func (t *transactional) explain(err error) error {
	open := time.Since(time.Unix(0, t.begun.Load()))
	var code sarama.KError
	if open < t.s.cfg.TransactionTimeout || !isFenced(err) || !errors.As(err, &code) {
		return err
	}
	return &failure{
		op:     "commit a Kafka transaction",
		err:    fmt.Errorf("it had been open for %s, which is longer than its timeout of %s: %w", open.Round(time.Second), t.s.cfg.TransactionTimeout, code),
		remedy: "let a transaction hold fewer events, or raise its timeout; the events are published again",
	}
}

// inError reports that a producer's transaction can't be committed any more.
func inError(producer interface {
	TxnStatus() sarama.ProducerTxnStatusFlag
}) bool {
	return producer.TxnStatus()&sarama.ProducerTxnFlagInError != 0
}
