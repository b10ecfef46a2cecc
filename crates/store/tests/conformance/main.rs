//! What a store promises, asked of both databases: a SQLite file, and a schema of a PostgreSQL server that
//! `scripts/test.d/postgres.sh` starts. Every test has a database of its own.

mod codes;
mod crash;
mod grants;
mod keys;
mod place;
mod registrations;

/// Each case on each database.
macro_rules! on_both {
    ($($module:ident::$case:ident),* $(,)?) => {
        mod sqlite {
            use super::place::Place;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    super::$module::$case(&Place::sqlite()).await;
                }
            )*
        }
        mod postgres {
            use super::place::Place;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let place = Place::postgres().await;
                    super::$module::$case(&place).await;
                    place.remove().await;
                }
            )*
        }
    };
}

on_both! {
    codes::a_code_is_taken_once,
    codes::a_code_ends,
    grants::a_grant_is_kept_replaced_and_deleted,
    grants::one_of_many_gets_the_lease,
    grants::a_lease_ends,
    grants::only_the_holder_finishes_and_only_the_version_it_saw,
    grants::a_grant_made_again_is_another,
    grants::concurrent_puts_all_succeed,
    grants::a_row_of_somebody_else_does_not_open,
    registrations::one_of_many_registers,
    registrations::a_registration_is_renewed_once,
    registrations::a_lease_that_ended_writes_nothing,
    keys::many_first_starts_make_one_database,
    keys::another_key_is_refused,
    keys::a_damaged_check_value_is_refused,
    keys::rotation_beside_a_live_store,
    keys::reseal_knows_every_sealed_column,
    keys::an_unreadable_row_is_counted_and_stays,
    keys::a_database_of_a_newer_program_is_refused,
}
