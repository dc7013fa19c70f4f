package kafka

import (
	"errors"
	"fmt"

	"github.com/IBM/sarama"

	"github.com/walpost/walpost/sink"
)

// Conditions this package puts a relay in, by their stable names.
const (
	condUnreachable       = "kafka_unreachable"
	condAuthFailed        = "kafka_auth_failed"
	condTopicMissing      = "topic_missing"
	condCheckpointMissing = "checkpoint_missing"
	condCheckpointTooNew  = "checkpoint_too_new"
	condStalled           = "stalled"
	// condTakenOver: the registry has no condition of its own for a fenced
	// producer. Another relay of this pipeline works, and this one is a standby
	// until it ends: that is slot_busy.
	condTakenOver = "slot_busy"
)

// failure is an error that says what it means for the relay.
type failure struct {
	op        string // what was attempted, on what
	condition string // "" is none in particular: starting again is worth a try
	remedy    string // "" leaves it to the condition's own
	final     bool   // trying again can't help
	err       error
}

func (f *failure) Error() string     { return f.op + ": " + f.err.Error() }
func (f *failure) Unwrap() error     { return f.err }
func (f *failure) Condition() string { return f.condition }
func (f *failure) Remedy() string    { return f.remedy }
func (f *failure) Retryable() bool   { return !f.final }

// errClosed is what a session answers after, or while, it is closed.
var errClosed = errors.New("kafka session: closed")

// explain gives an error of sarama's its meaning. One that has one already
// keeps it.
func explain(op string, err error) error {
	var known *failure
	var rejected *sink.Rejected
	if errors.As(err, &known) || errors.As(err, &rejected) {
		return err
	}
	err = firstCause(err)
	f := &failure{op: op, err: err}
	switch {
	case isAny(err, sarama.ErrProducerFenced, sarama.ErrInvalidProducerEpoch):
		// sarama has no text for the first.
		f.err = fmt.Errorf("fenced: another relay of this pipeline has taken over (or a commit outlived its transaction timeout): %w", err)
		f.condition = condTakenOver
	case isAny(err, sarama.ErrTopicAuthorizationFailed, sarama.ErrClusterAuthorizationFailed, sarama.ErrTransactionalIDAuthorizationFailed,
		sarama.ErrGroupAuthorizationFailed, sarama.ErrSASLAuthenticationFailed, sarama.ErrUnsupportedSASLMechanism, sarama.ErrIllegalSASLState):
		f.condition = condAuthFailed
	case isAny(err, sarama.ErrUnknownTopicOrPartition):
		f.condition = condTopicMissing
	case isAny(err, sarama.ErrNotEnoughReplicas, sarama.ErrNotEnoughReplicasAfterAppend):
		f.condition = condStalled
	case !isAnswer(err):
		f.err = fmt.Errorf("the brokers can't be reached: %w", err)
		f.condition = condUnreachable
	}
	return f
}

// isAnswer reports whether a broker that can be reached said so itself. What
// brokers say of one another being away counts as unreachable.
func isAnswer(err error) bool {
	var code sarama.KError
	if !errors.As(err, &code) {
		return false
	}
	return !isAny(code, sarama.ErrLeaderNotAvailable, sarama.ErrNotLeaderForPartition, sarama.ErrRequestTimedOut, sarama.ErrBrokerNotAvailable,
		sarama.ErrReplicaNotAvailable, sarama.ErrNetworkException, sarama.ErrConsumerCoordinatorNotAvailable, sarama.ErrNotCoordinatorForConsumer,
		sarama.ErrOffsetsLoadInProgress, sarama.ErrNotController)
}

// refusesRecord reports whether err is a broker's judgement on the records
// themselves, which sending them again would not change.
func refusesRecord(err error) bool {
	var unencodable sarama.PacketEncodingError
	return errors.As(err, &unencodable) || isAny(err, sarama.ErrMessageSizeTooLarge, sarama.ErrMessageSetSizeTooLarge,
		sarama.ErrInvalidRecord, sarama.ErrInvalidTopic, sarama.ErrInvalidTimestamp, sarama.ErrPolicyViolation, sarama.ErrUnsupportedForMessageFormat)
}

// firstCause looks into the lists that sarama's synchronous producer returns:
// their text is only a count.
func firstCause(err error) error {
	var list sarama.ProducerErrors
	if errors.As(err, &list) && len(list) > 0 {
		return list[0].Err
	}
	return err
}

func isAny(err error, targets ...error) bool {
	for _, target := range targets {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}
