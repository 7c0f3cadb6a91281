package bitmap

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"github.com/lockstep-storage/lockstep/disk"
)

// runPages is how many adjacent pages are read or written at a time.
const runPages = 64

// A pageFile is a bitmap's file: the header in force and pages of bits. Its
// methods are not safe for concurrent use.
type pageFile struct {
	f       disk.File
	path    string // for messages
	magic   magic
	h       header // as it is on disk
	first   int64  // the copy of the header that a commit writes first
	scratch []byte
	failed  error // the first failure of a write or a sync; ErrClosed when closed
}

// createFile makes the file under a name of its own and renames it into place,
// so that name is a whole bitmap or nothing. It fails with fs.ErrExist if name
// is there.
func createFile(dir disk.FS, name string, m magic, h header) (*pageFile, error) {
	if err := checkGeometry(h.size, h.unit); err != nil {
		return nil, fmt.Errorf("create bitmap %v/%s: %w", dir, name, err)
	}
	if f, err := dir.Open(name); err == nil {
		err = fmt.Errorf("create bitmap %v/%s: %w", dir, name, fs.ErrExist)
		return nil, errors.Join(err, f.Close())
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("create bitmap %v/%s: %w", dir, name, err)
	}
	p := &pageFile{path: fmt.Sprintf("%v/%s", dir, name), magic: m, h: h}
	if err := p.create(dir, name); err != nil {
		err = fmt.Errorf("create bitmap %s: %w", p.path, err)
		if p.f != nil {
			err = errors.Join(err, p.f.Close())
		}
		return nil, err
	}
	return p, nil
}

func (p *pageFile) create(dir disk.FS, name string) (err error) {
	temp := name + ".new" // left by a crash, if it is there
	if err := dir.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if p.f, err = dir.Create(temp); err != nil {
		return err
	}
	// The whole length at once (it is sparse): a file that is shorter later was
	// cut, and its missing pages count as damaged.
	if err := p.f.Truncate((headerPages + p.h.pages()) * pageSize); err != nil {
		return err
	}
	if err := p.commit(p.h); err != nil {
		return err
	}
	if err := dir.Rename(temp, name); err != nil {
		return err
	}
	return dir.SyncDir()
}

// openFile opens the file of a volume of size bytes, with unit bytes per bit (0
// for any), and settles which header is in force.
func openFile(dir disk.FS, name string, m magic, size, unit int64) (*pageFile, error) {
	f, err := dir.Open(name)
	if err != nil {
		return nil, fmt.Errorf("open bitmap %v/%s: %w", dir, name, err)
	}
	p := &pageFile{f: f, path: fmt.Sprintf("%v/%s", dir, name), magic: m}
	if err = p.readHeader(size, unit); err == nil {
		err = dir.SyncDir() // should createFile have been killed before its own
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open bitmap %s: %w", p.path, err), f.Close())
	}
	return p, nil
}

// readHeader puts the newer of the two copies that can be read into force. The
// other one is brought level before anybody relies on it: else, should the newer
// be lost one day, the older would come into force again, with a base that lies.
func (p *pageFile) readHeader(size, unit int64) error {
	worn, err := p.findHeader(size, unit)
	if err != nil || len(worn) == 0 {
		return err
	}
	return p.commit(p.h)
}

// findHeader takes the newer of the two copies that can be read, and changes
// nothing. worn are the copies that cannot, or that are older.
func (p *pageFile) findHeader(size, unit int64) (worn []int, err error) {
	var h [headerPages]header
	var errs [headerPages]error
	for i := range h {
		buf := p.buffer(1)
		if err := readPages(p.f, buf, int64(i)); err != nil {
			return nil, err
		}
		errs[i] = h[i].decode(buf, p.magic)
	}
	for _, err := range errs {
		if errors.Is(err, ErrVersion) || errors.Is(err, ErrMismatch) {
			return nil, err
		}
	}
	switch {
	case errs[0] != nil && errs[1] != nil:
		return nil, fmt.Errorf("neither copy of the header can be read: %w; %w", errs[0], errs[1])
	case errs[0] != nil || errs[1] == nil && h[1].seq > h[0].seq:
		p.h, p.first = h[1], 0
	default:
		p.h, p.first = h[0], 1
	}
	switch {
	case p.h.size != size:
		return nil, fmt.Errorf("%w: a volume of %d bytes, and this one has %d", ErrMismatch, p.h.size, size)
	case unit != 0 && p.h.unit != unit:
		return nil, fmt.Errorf("%w: %d bytes per bit, and %d are wanted", ErrMismatch, p.h.unit, unit)
	}
	if errors.Join(errs[:]...) == nil && h[0] == h[1] {
		return nil, nil
	}
	return []int{int(p.first)}, nil
}

// load calls report for each page that is not void, and for void ones too if
// they count as all set, in order. The words are those of a good page, valid
// during the call; any other is all set.
//
// Its caller presumes that good pages are not durable: a process that was
// killed, or whose sync failed, may have left in the page cache what is not on
// disk.
func (p *pageFile) load(report func(i int64, state pageState, words *[pageWords]uint64)) (damaged []int, err error) {
	var words [pageWords]uint64
	ends, err := p.f.Size()
	if err != nil {
		return nil, fmt.Errorf("open bitmap %s: size: %w", p.path, err)
	}
	defer func() { p.scratch = nil }() // few pages are written at a time, as a rule
	n := p.h.pages()
	for first := int64(0); first < n; first += runPages {
		buf := p.buffer(int(min(n-first, runPages)))
		if err := readPages(p.f, buf, headerPages+first); err != nil {
			return nil, fmt.Errorf("open bitmap %s: %w", p.path, err)
		}
		for i := first; len(buf) > 0; i, buf = i+1, buf[pageSize:] {
			state := decodePage(buf[:pageSize], i, p.h.era, &words)
			if (headerPages+i+1)*pageSize > ends {
				state = pageDamaged
			}
			if state == pageDamaged {
				damaged = append(damaged, int(i))
			}
			if state == pageGood {
				report(i, state, &words)
			} else if state == pageDamaged || p.h.fill == fillSet {
				report(i, state, &fullPage.words)
			}
		}
	}
	return damaged, nil
}

// readPages fills buf from page number first of the file on; what lies past the
// file's end reads as zeroes.
func readPages(f io.ReaderAt, buf []byte, first int64) error {
	n, err := f.ReadAt(buf, first*pageSize)
	if n < len(buf) && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read page %d: %w", first, err)
	}
	clear(buf[n:])
	return nil
}

// writePages writes the pages of those numbers, which it sorts, durably. encode
// gives a page's words, which need to stay as they are only until the next call.
func (p *pageFile) writePages(numbers []int64, words func(i int64) []uint64) error {
	if len(numbers) == 0 {
		return nil
	}
	slices.Sort(numbers)
	for len(numbers) > 0 {
		run := 1
		for run < min(len(numbers), runPages) && numbers[run] == numbers[0]+int64(run) {
			run++
		}
		buf := p.buffer(run)
		for k, i := range numbers[:run] {
			encodePage(buf[k*pageSize:][:pageSize], i, p.h.era, words(i))
		}
		if _, err := p.f.WriteAt(buf, (headerPages+numbers[0])*pageSize); err != nil {
			return fmt.Errorf("write page %d: %w", numbers[0], err)
		}
		numbers = numbers[run:]
	}
	return p.datasync()
}

// commit puts h into force, durably. One copy after the other: at every moment
// one of them is whole, and outside of a commit both are the same, so that
// losing either loses nothing.
func (p *pageFile) commit(h header) error {
	h.seq++
	buf := p.buffer(1)
	h.encode(buf, p.magic)
	for _, copy := range []int64{p.first, 1 - p.first} {
		if _, err := p.f.WriteAt(buf, copy*pageSize); err != nil {
			return fmt.Errorf("write header %d: %w", copy, err)
		}
		if err := p.datasync(); err != nil {
			return err
		}
	}
	p.h = h
	return nil
}

func (p *pageFile) datasync() error {
	if err := p.f.Datasync(); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	return nil
}

// try runs a change of the file unless an earlier one failed; a failure is
// final (invariant 9).
func (p *pageFile) try(change func() error) error {
	if p.failed == nil {
		if err := change(); err != nil {
			p.failed = fmt.Errorf("write bitmap %s: %w: %w", p.path, ErrFailed, err)
		}
	}
	return p.failed
}

func (p *pageFile) close() error {
	if errors.Is(p.failed, ErrClosed) {
		return nil
	}
	p.failed = fmt.Errorf("write bitmap %s: %w", p.path, ErrClosed)
	return p.f.Close()
}

// buffer gives n pages of memory, valid until the next call.
func (p *pageFile) buffer(n int) []byte {
	if cap(p.scratch) < n*pageSize {
		p.scratch = make([]byte, n*pageSize)
	}
	return p.scratch[:n*pageSize]
}
