package kafka

import (
	"context"
	"fmt"
	"time"

	"github.com/IBM/sarama"

	"github.com/walpost/walpost/sink"
)

// missingFor is for how long brokers must say that there is no checkpoint topic
// before that is believed. A broker that has just started may not know it yet,
// and a missing one stops the relay for good.
const missingFor = time.Second

// Sink publishes to one Kafka cluster for one pipeline.
type Sink struct {
	cfg       Config
	answering *answering
}

var _ sink.Sink = (*Sink)(nil)

// New checks the configuration. It does not connect.
func New(cfg Config) (*Sink, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return &Sink{cfg: cfg, answering: &answering{}}, nil
}

// Atomic implements [sink.Sink].
func (s *Sink) Atomic() bool { return s.cfg.Atomic }

// Marks implements [sink.Sink]. Without a checkpoint topic there are none.
func (s *Sink) Marks(ctx context.Context) (map[string][]byte, error) {
	d := newDialer(s.cfg.DialTimeout)
	defer d.cut()
	stop := context.AfterFunc(ctx, d.cut)
	defer stop()
	marks, err := s.readMarks(d)
	if isAny(err, sarama.ErrUnknownTopicOrPartition) {
		return map[string][]byte{}, nil
	}
	return marks, or(ctx, err)
}

func (s *Sink) readMarks(d *dialer) (map[string][]byte, error) {
	if err := s.checkCheckpointTopic(d); err != nil {
		return nil, err
	}
	store, err := readMarksOnly(s.connectable(), d)
	if err != nil {
		return nil, err
	}
	defer store.close()
	marks, err := store.read()
	delete(marks, floorsMark)
	return marks, err
}

// WriteMarks fences every session of the pipeline and makes marks durable. In
// the same transaction it deletes the sink's own floors mark: from then on every
// topic is accepted as it is, also one that was deleted and created again. It is
// for `walpost init`, and gives up after 30 s. A continuous session does it, which
// fences atomic ones too.
func (s *Sink) WriteMarks(ctx context.Context, marks map[string][]byte) error {
	late := &failure{op: "write the checkpoint", err: fmt.Errorf("not done within %s", s.cfg.writeTimeout), condition: condUnreachable}
	ctx, cancel := context.WithTimeoutCause(ctx, s.cfg.writeTimeout, late)
	defer cancel()
	writer := &Sink{cfg: s.cfg, answering: s.answering}
	writer.cfg.Atomic = false
	session, _, err := writer.openSession(ctx, func([]uint64, sink.Outcome) {})
	if err != nil {
		return err
	}
	if err := (continuous{session}).commitAnew(ctx, marks); err != nil {
		_ = session.Close(ctx) // the commit's error says more
		return err
	}
	return session.Close(ctx)
}

// Open implements [sink.Sink].
func (s *Sink) Open(ctx context.Context, settle sink.Settle) (sink.Session, map[string][]byte, error) {
	session, marks, err := s.openSession(ctx, settle)
	if err != nil {
		return nil, nil, err // not a nil *session, which would be a Session
	}
	return session, marks, nil
}

func (s *Sink) openSession(ctx context.Context, settle sink.Settle) (*session, map[string][]byte, error) {
	d := newDialer(s.cfg.DialTimeout)
	d.guard(s.cfg.PauseLimit, s.cfg.clock, s.cfg.Logger)
	stop := context.AfterFunc(ctx, d.cut)
	session, marks, err := s.open(d, settle)
	inTime := stop()
	if err != nil {
		d.cut()
		d.wait()
		return nil, nil, or(ctx, d.explain(err))
	}
	if !inTime {
		_ = session.Close(ctx)
		return nil, nil, context.Cause(ctx)
	}
	return session, marks, nil
}

// open fences first and then reads, so that no predecessor can change what was
// read.
func (s *Sink) open(d *dialer, settle sink.Settle) (*session, map[string][]byte, error) {
	if err := s.checkCheckpointTopic(d); err != nil {
		return nil, nil, err
	}
	connect := connectContinuous
	if s.cfg.Atomic {
		connect = connectTransactional
	}
	conn, err := connect(s.connectable(), d)
	if err != nil {
		return nil, nil, err
	}
	session, marks, err := s.start(d, conn, settle)
	if err != nil {
		d.cut() // so that closing does not wait for the network
		conn.close()
		return nil, nil, err
	}
	return session, marks, nil
}

func (s *Sink) start(d *dialer, conn *connection, settle sink.Settle) (*session, map[string][]byte, error) {
	marks, err := conn.marks.read()
	if err != nil {
		return nil, nil, err
	}
	floors, err := decodeFloors(marks[floorsMark])
	if err != nil {
		return nil, nil, err
	}
	floors.route(s.cfg.Routing)
	delete(marks, floorsMark)
	session := &session{
		connection: conn,
		sink:       s,
		cfg:        s.cfg,
		dialer:     d,
		settle:     settle,
		floors:     floors,
		topics:     map[string]*topic{},
		duplicates: make(chan []uint64),
		moved:      make(chan struct{}, 1),
		done:       make(chan struct{}),
		closing:    make(chan struct{}),
	}
	session.ledger = continuous{session}
	if s.cfg.Atomic {
		session.ledger = &transactional{s: session}
	}
	session.spares.list = &session.carriers
	session.workers.Go(func() { newDrain(session).run() })
	session.workers.Go(func() { newWatch(session).run() })
	return session, marks, nil
}

func (s *Sink) checkCheckpointTopic(d *dialer) error {
	topic, err := s.awaitTopic(d, s.cfg.CheckpointTopic, missingFor)
	if isAny(err, sarama.ErrUnknownTopicOrPartition) {
		return &failure{
			op:        "checkpoint topic " + s.cfg.CheckpointTopic,
			err:       fmt.Errorf("it does not exist: %w", sarama.ErrUnknownTopicOrPartition),
			condition: condCheckpointMissing,
			final:     true,
		}
	}
	if err != nil {
		return err
	}
	return checkPartitionCount(topic)
}
