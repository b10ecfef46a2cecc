//! What a store promises, asked of both databases: a SQLite file, and a schema of a PostgreSQL server that
//! `scripts/test.d/postgres.sh` starts. Every test has a database of its own.

mod api_keys;
mod audit;
mod changes;
mod codes;
mod crash;
mod grants;
mod instances;
mod keys;
mod place;
mod registrations;
mod servers;
mod sessions;
mod user_secrets;
mod users;

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
    api_keys::a_key_is_kept_and_changed,
    api_keys::no_two_keys_share_an_id_digest_or_alias,
    api_keys::one_of_many_rotates,
    api_keys::uses_are_noted_and_go_with_the_key,
    api_keys::uses_are_noted_beside_deletions,
    api_keys::a_text_that_cannot_be_kept_is_refused,
    users::a_person_is_written_down_and_changed,
    users::a_person_is_deleted_whole,
    users::somebody_unknown_is_not_deleted,
    users::a_deletion_that_fails_deletes_nothing,
    users::people_are_deleted_beside_writers,
    users::what_came_while_a_deletion_waited_goes_too,
    users::a_key_and_its_owner_come_together_or_not_at_all,
    users::no_key_outlives_its_owner,
    servers::a_server_is_kept_and_changed,
    servers::no_two_servers_share_an_id_or_name,
    servers::a_server_that_does_not_open_hides_no_other,
    servers::a_server_inherits_nothing,
    servers::a_server_is_deleted_whole,
    servers::a_server_goes_at_its_time,
    user_secrets::a_secret_is_kept_replaced_and_deleted,
    user_secrets::a_secret_of_somebody_else_does_not_open,
    sessions::a_session_is_found_until_its_time,
    sessions::sessions_of_a_key_or_person_end_together,
    changes::each_kind_has_its_revision,
    changes::a_sign_in_is_news_and_a_renewal_is_not,
    changes::a_change_and_its_revision_are_one,
    audit::entries_are_found_by_each_column,
    audit::entries_are_read_in_pages,
    audit::late_entries_are_found_at_their_time,
    audit::a_name_loses_no_entry,
    audit::whoever_follows_misses_nothing,
    audit::old_entries_are_pruned,
    instances::processes_see_each_other,
}
