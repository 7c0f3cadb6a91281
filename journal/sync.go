package journal

import "fmt"

// Sync makes everything appended before the call durable and returns the LSN
// up to which the journal is. Whoever calls while another syncs is served by
// the next round (group commit). Its first failure is final.
func (j *Journal) Sync() (LSN, error) {
	j.mu.Lock()
	want := j.written
	j.mu.Unlock()
	j.syncMu.Lock()
	defer j.syncMu.Unlock()
	j.mu.Lock()
	done, err := j.synced >= want && j.everSynced, j.usable()
	j.mu.Unlock()
	if err == nil && !done {
		err = j.syncLocked()
	}
	if err != nil {
		return 0, err
	}
	return j.Durable(), nil
}

// syncLocked syncs the last segment; those before were synced when it began.
// j.syncMu is held, so that the chain stays as it is.
func (j *Journal) syncLocked() error {
	j.mu.Lock()
	// What is durable lies in pages that nobody writes to any more (format.go):
	// what is appended from here on goes elsewhere, and what is being appended
	// beside older records is waited for.
	for j.sealed = true; j.sharing; j.sealed = true {
		j.unshared.Wait()
	}
	s, end, written, err := j.tail(), j.end.Load(), j.written, j.usable()
	j.mu.Unlock()
	if err != nil {
		return err
	}
	err = s.f.Datasync()
	j.mu.Lock()
	defer j.mu.Unlock()
	if err != nil {
		return j.fail(fmt.Errorf("sync segment %s: %w", s.name, err))
	}
	j.everSynced = true
	j.synced = max(j.synced, written)
	j.durable.Store(max(j.durable.Load(), end))
	return nil
}
