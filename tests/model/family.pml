/* Letting children go: two parents that end in two sessions, their child, a child that is added to them meanwhile, and
   somebody who cancels the first child.

   As in engine.pml a step is what one statement does once it has its locks, and what is not committed is seen by its
   own transaction alone. Here the order of statements matters, because each one sees what was committed before it
   began. The faulty variants are switched on by ONE_STATEMENT_RELEASE and NO_PLACEHOLDER. */

#define TASKS 4
#define FIRST_PARENT 0
#define SECOND_PARENT 1
#define CHILD 2  /* of both parents, there from the start */
#define ADDED 3  /* a child of the first parent, of CHILD, or of both: added while they run and end */
#define ADDER 5  /* the transactions: 1 to 4 for the end of a task, these two */
#define CANCELLER 6
#define BIT(t) (1 << (t))
#define HAS(mask, t) (((mask) >> (t)) & 1)

#ifndef CRASHES
#define CRASHES 0 /* of PostgreSQL */
#endif
#ifndef CANCELS
#define CANCELS 1 /* somebody cancels CHILD, or nobody */
#endif

/* the tables, as committed; a bit for each task */

byte exists = 7;      /* task */
byte ended, bad;      /* result; state <> 'done' */
byte lined = 3;       /* has stood in ready, or was claimed */
byte claimed;
byte released;        /* dependency.released of all its rows */
byte parents[TASKS];  /* dependency */
byte on_failure_run;  /* on_parent_failure = 'run'; else cascade, or cancel, which ends the child in the same cases */

/* locks: the transaction that has it, 0 none */

byte place[TASKS];    /* the key in result: taken by whoever inserts it, until his transaction is over */
byte row[TASKS];      /* the row in task, for no key update */
byte claims;          /* the advisory lock, when it is held exclusively */

bit epoch;            /* changes when PostgreSQL crashes: every open transaction is gone */
byte crashes = CRASHES;
bit cancels;
byte to_be_parents;    /* of ADDED */

#define EVERY_TASK_ENDED (HAS(exists, ADDED) && ended == exists)

hidden byte i, j, n;
hidden byte no_early_release, a_child_is_let_go_once, a_bad_parent_ends_its_child, no_deadlock, every_task_ended;

/* what a statement of a transaction sees: what was committed when it began, and its own */
#define SEEN_ENDED (old_ended | my_ended)
#define SEEN_BAD (old_bad | my_bad)

inline take_snapshot() {
    old_ended = ended;
    old_bad = bad;
}

#define PARENTS(t) ((t) == ADDED && me == ADDER -> to_be_parents : parents[t])

/* select ... from dependency where parent = any (mask) */
inline children_of(mask) {
    atomic {
        skip;
        d_step {
            look = 0;
            i = 0;
            do
            :: i < TASKS ->
                if
                :: HAS(exists, i) && (parents[i] & (mask)) -> look = look | BIT(i)
                :: else
                fi;
                i++
            :: else -> break
            od;
            to_end = 0;
            next = 0
        }
    }
}

/* lock_tasks: one after the other, in the order of their ids */
inline lock_rows() {
    do
    :: d_step {
            next < TASKS && (row[next] == 0 || row[next] == me) ->
            if
            :: HAS(to_lock, next) -> row[next] = me
            :: else
            fi;
            skip_unwanted()
        }
    :: next == TASKS -> break
    od
}

inline skip_unwanted() {
    next++;
    do
    :: next < TASKS && !HAS(to_lock, next) -> next++
    :: else -> break
    od;
    n = 0
}

inline begin_to_lock() {
    next = 255;
    skip_unwanted()
}

/* the descendants of to_lock, too: lock_families */
inline with_descendants() {
    i = 0;
    do /* ids grow from parent to child here, so once through them is enough */
    :: i < TASKS ->
        if
        :: HAS(exists, i) && (parents[i] & to_lock) -> to_lock = to_lock | BIT(i)
        :: else
        fi;
        i++
    :: else -> break
    od
}

/* look_at_children, 0002_lines.sql; `look` are the children */
inline look_at_children() {
    /* lock_families, when a parent went bad */
    atomic {
        skip;
        d_step {
            to_lock = 0;
            i = 0;
            do
            :: i < TASKS ->
                if
                :: HAS(look, i) && (PARENTS(i) & (bad | my_bad)) -> to_lock = look
                :: else
                fi;
                i++
            :: else -> break
            od;
            with_descendants();
            begin_to_lock()
        }
    }
    lock_rows();
    do
    :: look == 0 -> break
    :: look != 0 ->
        atomic { skip; d_step { to_lock = look; begin_to_lock() } }
        lock_rows();
        /* family, verdict: a new statement, so it sees what the transactions have committed that it waited for */
        atomic {
            skip;
            d_step {
#ifndef ONE_STATEMENT_RELEASE
                take_snapshot();
#endif
                to_end = 0;
                i = 0;
                do
                :: i < TASKS ->
                    n = PARENTS(i);
                    if
                    :: HAS(look, i) && !HAS(released | my_released, i) && !HAS(SEEN_ENDED, i) ->
                        if
                        :: !HAS(on_failure_run, i) && (n & SEEN_BAD) ->
                            to_end = to_end | BIT(i);
                            my_released = my_released | BIT(i)
                        :: (HAS(on_failure_run, i) || !(n & SEEN_BAD)) && !(n & ~SEEN_ENDED) ->
                            my_lined = my_lined | BIT(i);
                            my_released = my_released | BIT(i)
                        :: else
                        fi
                    :: else
                    fi;
                    i++
                :: else -> break
                od;
                look = 0;
                next = 0
            }
        }
        /* bad: insert into result ... order by id on conflict do nothing, which waits for whoever has the place */
        do
        :: d_step {
                next < TASKS && (!HAS(to_end, next) || place[next] == 0 || place[next] == me) ->
                if
                :: HAS(to_end, next) && !HAS(ended | my_ended, next) ->
                    place[next] = me;
                    my_ended = my_ended | BIT(next);
                    my_bad = my_bad | BIT(next)
                :: else -> to_end = to_end & ~BIT(next)
                fi;
                next++;
                do
                :: next < TASKS && !HAS(to_end, next) -> next++
                :: else -> break
                od;
                n = 0
            }
        :: next == TASKS -> break
        od;
        children_of(to_end)
    od
}

inline forget() {
    my_ended = 0;
    my_bad = 0;
    my_lined = 0;
    my_released = 0;
    old_ended = 0;
    old_bad = 0;
    look = 0;
    to_lock = 0;
    to_end = 0;
    next = 0
}

/* what was ours is seen by all, and others may go on */
inline commit() {
    a_child_is_let_go_once = ((lined & my_lined) == 0);
    assert(a_child_is_let_go_once);
    lined = lined | my_lined;
    released = released | my_released;
    ended = ended | my_ended;
    bad = bad | my_bad;
    if
    :: me == ADDER -> exists = exists | BIT(ADDED); parents[ADDED] = to_be_parents
    :: else
    fi;
    i = 0;
    do
    :: i < TASKS ->
        no_early_release = (!HAS(my_lined, i) || (parents[i] & ~ended) == 0);
        assert(no_early_release);
        a_bad_parent_ends_its_child = (!HAS(my_lined, i) || HAS(on_failure_run, i) || (parents[i] & bad) == 0);
        assert(a_bad_parent_ends_its_child);
        place[i] = (place[i] == me -> 0 : place[i]);
        row[i] = (row[i] == me -> 0 : row[i]);
        i++
    :: else -> break
    od;
    claims = (claims == me -> 0 : claims);
    printf("transaction %d is committed: ended %d, bad %d, lined %d, released %d\n", me, ended, bad, lined, released);
    forget()
}

/* claim, 0004_claim.sql, in one step, then settle, 0005_settle.sql, with after_end, 0002_lines.sql */
proctype End(byte task) {
    byte me;
    byte my_ended, my_bad, my_lined, my_released, old_ended, old_bad;
    byte look, to_lock, to_end, next;
    bit era, fails;

    me = task + 1;
end_not_claimed: /* for good, when it was cancelled before */
    d_step { HAS(lined, task) && !HAS(ended, task) && !claims -> claimed = claimed | BIT(task) }
    if
    :: fails = 0
    :: task != ADDED -> fails = 1 /* it has no children */
    fi;
again:
#ifdef ONE_STATEMENT_RELEASE
    take_snapshot();
#endif
    /* insert into result ... on conflict do nothing */
    atomic {
            place[task] == 0 ->
            era = epoch;
            printf("transaction %d begins: task %d has ended, bad: %d\n", me, task, fails);
            if
            :: !HAS(ended, task) -> place[task] = me; my_ended = BIT(task); my_bad = fails << task
            :: else
            fi
    }
    {
        children_of(my_ended);
        look_at_children();
        atomic { skip; d_step { commit() } }
    } unless {
        atomic { era != epoch -> forget(); goto again }
    }
}

/* add_tasks, 0003_enqueue.sql: insert into task, into dependency; then, unless it is the faulty variant, the places */
#define IS_PARENT(t) HAS(to_be_parents, t)
#define PLACE_CAN_BE_HELD(t) (!IS_PARENT(t) || place[t] == 0)
#define HOLD(t) place[t] = (IS_PARENT(t) && !HAS(ended, t) -> me : place[t])

proctype Adder() {
    byte me = ADDER;
    byte my_ended, my_bad, my_lined, my_released, old_ended, old_bad;
    byte look, to_lock, to_end, next;
    bit era;

    if
    :: to_be_parents = BIT(FIRST_PARENT)
    :: to_be_parents = BIT(CHILD)
    :: to_be_parents = BIT(FIRST_PARENT) | BIT(CHILD)
    fi;
again:
    atomic { era = epoch; printf("transaction %d begins: adds a child of %d (a bit for each)\n", me, to_be_parents) }
    {
#ifndef NO_PLACEHOLDER
        /* hold_ends: insert into result ... on conflict do nothing, and delete it again; all places or none */
        d_step {
            PLACE_CAN_BE_HELD(FIRST_PARENT) && PLACE_CAN_BE_HELD(CHILD) ->
            HOLD(FIRST_PARENT);
            HOLD(CHILD)
        }
#endif
        atomic { skip; take_snapshot(); look = BIT(ADDED) }
        look_at_children();
        atomic { skip; d_step { commit() } }
    } unless {
        atomic { era != epoch -> forget(); goto again }
    }
}

/* cancel_tasks, 0009_control.sql, with after_end */
proctype Canceller() {
    byte me = CANCELLER;
    byte my_ended, my_bad, my_lined, my_released, old_ended, old_bad;
    byte look, to_lock, to_end, next;
    bit era;

end_nobody_cancels:
    if
    :: cancels -> cancels = 0
    fi;
again:
    /* pg_advisory_xact_lock; a task that runs is left to its server; lock_families; insert into result */
    atomic {
        claims == 0 ->
        era = epoch;
        claims = me;
        take_snapshot();
        printf("transaction %d begins: cancels task %d\n", me, CHILD)
    }
    {
        atomic {
            skip;
            d_step {
                to_lock = (HAS(claimed, CHILD) -> 0 : BIT(CHILD));
                with_descendants();
                begin_to_lock()
            }
        }
        lock_rows();
        atomic {
            HAS(claimed, CHILD) || place[CHILD] == 0 ->
            if
            :: !HAS(claimed, CHILD) && !HAS(ended, CHILD) ->
                place[CHILD] = me;
                my_ended = BIT(CHILD);
                my_bad = BIT(CHILD)
            :: else
            fi
        }
        children_of(my_ended);
        look_at_children();
        atomic { skip; d_step { commit() } }
    } unless {
        atomic { era != epoch -> forget(); goto again }
    }
}

#define SOMEBODY_HOLDS \
    (place[0] || place[1] || place[2] || place[3] || row[0] || row[1] || row[2] || row[3])

/* PostgreSQL crashes: open transactions are gone, with their locks. All commits here are flushed. */
proctype Fate() {
end:
    d_step {
        crashes && SOMEBODY_HOLDS && !EVERY_TASK_ENDED ->
        printf("PostgreSQL crashes\n");
        crashes--;
        epoch = 1;
        i = 0;
        do
        :: i < TASKS -> place[i] = 0; row[i] = 0; i++
        :: else -> break
        od;
        claims = 0
    }
}

/* every run comes to an end: nobody holds what another waits for, and every task has ended */
active proctype Judge() {
end:
    timeout ->
    no_deadlock = !SOMEBODY_HOLDS;
    assert(no_deadlock);
    every_task_ended = EVERY_TASK_ENDED;
    assert(every_task_ended)
}

init {
    atomic {
        parents[CHILD] = BIT(FIRST_PARENT) | BIT(SECOND_PARENT);
        if
        :: cancels = 0
        :: cancels = CANCELS
        fi;
        if
        :: on_failure_run = 0
        :: on_failure_run = BIT(CHILD)
        :: on_failure_run = BIT(ADDED)
        :: on_failure_run = BIT(CHILD) | BIT(ADDED)
        fi;
        run End(FIRST_PARENT);
        run End(SECOND_PARENT);
        run End(CHILD);
        run End(ADDED);
        run Adder();
        run Canceller();
        run Fate()
    }
}
